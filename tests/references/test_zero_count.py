"""Counting the values on a threshold: in hand-made graphs, over batches, and in ``validate`` of a file from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.errors import BundleError, ModelFileError
from bnn_deploy.passes.onnx.import_report import ActivationReport
from bnn_deploy.references.whole_model import open_reference
from bnn_deploy.references.zero_count import Probe, ZeroCounter, probes_of
from bnn_deploy.validation.origin import recorded_activations
from tests.passes.onnx_models import model, node, packed

TINY = np.float32(1e-45)  # the smallest denormal
VALUES = np.array([0.0, -0.0, TINY, -TINY, 0.5, -0.5, 1.0, np.nan, np.inf, -np.inf], np.float32)
ACROSS = Probe("across", "moved", 0.0, -1)  # images are not along the first axis


def network(batch: int | str, opset: int = 17) -> onnx.ModelProto:
    """x (batch, 2, 3) to half of it; ``moved`` has the axes (2, batch, 3), ``flat`` (batch * 2, 3)."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["moved"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["x", "rows"], ["flat"]),
        helper.make_node("Mul", ["x", "half"], ["y"]),
    ]
    constants = {
        "rows": np.array([-1, 3], np.int64),
        "half": np.array(0.5, np.float32),
        "t": np.float32([0.0, 0.5, 1.0]),
    }
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 2, 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "network", infos[:1], infos[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def counted(path: Path, counter: ZeroCounter, batch: int, images: np.ndarray, size: int) -> np.ndarray:
    """The logits of ``images`` under onnxruntime, ``size`` at a time."""
    from bnn_deploy.references.whole_model import _onnxruntime

    run = _onnxruntime(network(batch or "n"), path, batch, counter)
    return np.concatenate([run(images[start : start + size]) for start in range(0, len(images), size)])


@pytest.mark.parametrize("opset", [11, 13, 21])
@pytest.mark.parametrize("threshold", [0.0, 0.5, -0.5, float(TINY), "t"])
def test_counts_are_exact(opset: int, threshold: float | str) -> None:
    """Breaks if -0.0, denormals, NaN or infinities are counted wrongly, or the graph is not valid in an older operator set."""
    import onnxruntime

    x = np.random.default_rng(0).choice(VALUES, (50, 2, 3))
    counter = ZeroCounter(network("n", opset), [Probe("sign", "flat", threshold, -1)])
    onnx.checker.check_model(counter.model)
    session = onnxruntime.InferenceSession(counter.model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits, *outputs = session.run(None, {"x": x})
    np.testing.assert_array_equal(logits, x / 2)
    counter.add(outputs, 50, 50)
    zeros = int((x == (np.float32([0.0, 0.5, 1.0]) if threshold == "t" else np.float32(threshold))).sum())
    layers = [{"name": "sign", "zeros": zeros, "bundle": -1}]
    assert zeros and counter.to_dict() == {"compared": 300, "zeros": zeros, "layers": layers}


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 13), batch=st.integers(0, 5), size=st.integers(1, 6), seed=st.integers(0, 1000))
@example(count=7, batch=4, size=7, seed=0)
def test_images_that_fill_up_a_batch_do_not_count(count: int, batch: int, size: int, seed: int) -> None:
    """Breaks if zeros are counted twice, forgotten, or counted in copies of the last image of a file with a fixed batch."""
    x = np.random.default_rng(seed).choice(VALUES[:6], (count, 2, 3))
    probes = [Probe("image", "x", 0.0, -1), Probe("rows", "flat", 0.5, 1)]
    counter = ZeroCounter(network(batch or "n"), probes)
    np.testing.assert_array_equal(counted(Path("x.onnx"), counter, batch, x, size), x / 2)
    zeros = [int((x == 0).sum()), int((x == 0.5).sum())]
    assert counter.compared == [x.size, x.size] and counter.zeros == zeros
    assert [layer["bundle"] for layer in counter.to_dict()["layers"]] == [-1, 1]


def test_values_without_whole_images_are_left_out_of_filled_batches() -> None:
    """Breaks if zeros of the copies that fill up a batch are counted where they cannot be told apart."""
    x = np.zeros((7, 2, 3), np.float32)
    counter = ZeroCounter(network(3), [ACROSS])
    counted(Path("x.onnx"), counter, 3, x, 7)
    # Two whole batches of 3; (2, 3, 3) of the last one has two rows for three images.
    assert (counter.compared, counter.zeros) == ([36], [36])


def test_names_do_not_clash_and_the_model_stays() -> None:
    """Breaks if a file that names a value like an added one is damaged, or the caller's model changes."""
    original = network("n")
    renamed = helper.make_node("Identity", ["x"], ["bnn_deploy.zeros.0.counts"])
    original.graph.node.append(renamed)
    content = original.SerializeToString()
    counter = ZeroCounter(original, [Probe("sign", "x", 0.0, -1)])
    assert original.SerializeToString() == content
    onnx.checker.check_model(counter.model)
    with pytest.raises(ModelFileError, match="no value 'w', which 'sign' binarises"):
        ZeroCounter(original, [Probe("sign", "w", 0.0, -1)])


def test_probes() -> None:
    """Breaks if signs that the bundle keeps as they are get counted, or a threshold is taken for 0."""
    nodes = [node("Sign", "x t", "s", "sign", zero=-1), node("BinaryLinear", "s w", "y", "layer", in_features=3)]
    ours = model(nodes, ["n", 3], {"t": np.float32([0.5]), "w": packed(4, 3)}, rank=2)
    rows = [
        ActivationReport("kept", "x", "three-valued", 0, 0),
        ActivationReport("decided", "x", "sign", 1, 1),
        ActivationReport("sign", "x", "sign", 0, -1, threshold=7.0),
        ActivationReport("nameless", "", "sign", 0, -1),
        ActivationReport("vector", "x", "sign", 0, -1, threshold="v"),
        ActivationReport("other", "x", "sign", 0, 1, threshold=2.0),
    ]
    assert probes_of(ours, rows) == [
        Probe("sign", "x", "t", -1),
        Probe("vector", "x", "v", -1),
        Probe("other", "x", 2.0, 1),
    ]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Standard operators only, fixed batch 2: sums of whole numbers, often 0, under a sign, then weights of ±1."""
    random = np.random.default_rng(0)
    geometry = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    constants = {
        "stem_weight": random.integers(-1, 2, (8, 3, 3, 3)).astype(np.float32),
        "weight": random.choice(np.array([-1, 1], np.float32), (10, 8, 3, 3)),
    }
    nodes = [
        node("Conv", "x stem_weight", "stem", **geometry),
        node("ai.onnx.Sign", "stem", "s", "block.sign"),
        node("Conv", "s weight", "conv", "block.conv", **geometry),
        node("GlobalAveragePool", "conv", "pooled"),
        node("Flatten", "pooled", "y", axis=1),
    ]
    path = tmp_path_factory.mktemp("foreign") / "network.onnx"
    onnx.save(model(nodes, [2, 3, 4, 4], constants, rank=2), path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images of whole numbers: the last batch of two is filled up."""
    path = tmp_path_factory.mktemp("images") / "x.npy"
    np.save(path, np.random.default_rng(1).integers(-1, 2, (5, 3, 4, 4)).astype(np.float32))
    return path


def zeros_of_the_sign(foreign: Path, images: np.ndarray) -> int:
    """How many values the sign reads are 0, from the definition of the convolution."""
    weight = numpy_helper.to_array(onnx.load(foreign).graph.initializer[0])
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return int((np.einsum("nchwij,ocij->nohw", windows, weight) == 0).sum())


@pytest.mark.parametrize("door", ["compile", "import"])
def test_validate_counts_zeros(door: str, foreign: Path, images: Path, tmp_path: Path, invoke: Callable) -> None:
    """Breaks if validate does not say how often the bundle differs from the file by sign(0), through either door."""
    source = foreign
    choice = ("--sign-zero", "-1")
    if door == "import":
        source = tmp_path / "imported.onnx"
        assert invoke("import", foreign, "-o", source, *choice).exit_code == 0
        choice = ()
    compiled = invoke("compile", source, "--target", "host", "--batch", 2, "-o", tmp_path / "b", *choice)
    assert compiled.exit_code == 0, compiled.stderr
    arguments = ("validate", source, "--bundle", tmp_path / "b", "--data", images, "--min-agreement", 0)
    result = invoke(*arguments, "--format", "json")
    assert result.exit_code == 0, result.stderr
    zeros = zeros_of_the_sign(foreign, np.load(images))
    assert zeros > 20
    layers = [{"name": "block.sign", "zeros": zeros, "bundle": -1}]
    assert json.loads(result.stdout)["zero_activations"] == {"compared": 5 * 8 * 16, "zeros": zeros, "layers": layers}
    line = f"{zeros} of 640 binarised values were exactly at the threshold (the file says 0, the bundle -1): block.sign {zeros}"
    assert f"sign(0)          {line}\n" in invoke(*arguments).stdout
    one = np.full((1, 3, 4, 4), 0.37, np.float32) + np.arange(48, dtype=np.float32).reshape(1, 3, 4, 4) ** 1.5
    np.save(tmp_path / "one.npy", one)
    rare = invoke("validate", source, "--bundle", tmp_path / "b", "--data", tmp_path / "one.npy", "--min-agreement", 0)
    assert "none of 128 binarised values was exactly at the threshold" in rare.stdout


def test_signs_that_are_kept_are_not_counted(foreign: Path, images: Path, tmp_path: Path, invoke: Callable) -> None:
    """Breaks if a bundle that keeps sign(0) = 0 differs from its file, or is said to differ from it."""
    assert (
        invoke("compile", foreign, "--target", "host", "--batch", 2, "-o", tmp_path / "b", "--sign-zero", "0").exit_code
        == 0
    )
    result = json.loads(
        invoke("validate", foreign, "--bundle", tmp_path / "b", "--data", images, "--format", "json").stdout
    )
    assert result["passed"] is True and result["zero_activations"] is None
    # Sums of 72 products of -1, 0, +1, averaged over 16 pixels: exact in float32.
    assert result["model"]["max_abs_error"] == 0.0


@pytest.mark.parametrize(
    "damaged",
    [
        {"activations": 3},
        {"layers": []},
        ["activations"],
        {"activations": [{"name": "s"}]},
        {"activations": [{"name": "s", "source": 4, "kind": "sign", "graph_zero": 0, "compiled_zero": -1}]},
        {"activations": [{"name": "s", "source": "x", "kind": "sign", "graph_zero": 0, "compiled_zero": 7}]},
        {"activations": [{"name": "s", "source": "x", "kind": "sign", "graph_zero": 0, "compiled_zero": []}]},
    ],
)
def test_damaged_manifests(damaged: object, foreign: Path, tiny_bundle: Path) -> None:
    """Breaks if a manifest from elsewhere ends in a traceback."""
    bundle = Bundle.open(tiny_bundle)
    bundle.manifest["import"] = damaged
    with pytest.raises(BundleError, match="says nothing sensible of the import"):
        recorded_activations(foreign, bundle)


def test_logits_of_unknown_number(foreign: Path) -> None:
    """Breaks if a file that does not state the shape of its output cannot be compared with its bundle."""
    output = onnx.load(foreign).graph.output[0].type.tensor_type.shape
    assert [dimension.dim_value for dimension in output.dim] == [0, 0]
    reference = open_reference("onnxruntime", foreign)
    assert (reference.classes, reference.batch, reference.input_shape) == (10, 2, (3, 4, 4))
