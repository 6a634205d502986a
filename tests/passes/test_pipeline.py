"""The pipeline: all passes together on a small ONNX file, its dumps, its progress and its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from bnn_deploy.errors import CompileError, ModelFileError
from bnn_deploy.passes import pipeline
from bnn_deploy.passes.pipeline import lower
from bnn_deploy.targets.registry import all_targets, get_target, host_target
from tests.passes.execute import run_plan
from tests.passes.onnx_models import model, node, packed, run, small_network

HOST = host_target()
PASSES = [
    "freeze_batch",
    "merge_heads",
    "import_onnx",
    "name_layers",
    "fold_constants",
    "drop_identity",
    "fold_threshold",
    "fold_affine",
    "to_channels_last",
    "decompose_group_norm",
    "split_means",
    "pack",
    "gather_shifts",
    "merge_layers",
    "block_rows",
    "merge_packs",
    "fuse_epilogue",
    "lower_binary",
    "fuse_float",
    "kernel_set",
    "plan_memory",
]


def test_the_plan_computes_what_onnxruntime_computes(tmp_path: Path) -> None:
    """Breaks: some pass, or what stands between two of them, changes the network."""
    network = small_network()
    # Numbers of few bits: sums are exact in float32 in any order, also fused.
    x = np.random.default_rng(0).integers(-4, 5, (2, 3, 8, 8)).astype("float32")
    lowered = lower(network, HOST, 2)
    np.testing.assert_array_equal(run_plan(lowered, HOST, x, tmp_path), run(network, x))


@pytest.mark.parametrize("target", [target.name for target in all_targets()])
def test_every_target_gets_kernels_and_a_plan(target: str) -> None:
    """Breaks: a target cannot be lowered for, or its binary layers run as floats."""
    lowered = lower(small_network(), get_target(target), 1)
    kinds = [step.kind for step in lowered.plan.steps]
    assert kinds.count("binary") == 1 and kinds.count("pack") == 2  # the sign, and the roll of its words
    sets = lowered.plan.kernel_sets
    assert [kernel_set.name for kernel_set in sets] == [name for name, _ in get_target(target).variants]
    for kernel_set, kernels in zip(sets, lowered.kernels, strict=True):
        defined = {str(function.attrs["global_symbol"]) for _, function in kernels.functions_items()}
        assert {step.kernel for step in kernel_set.steps} == defined


def test_steps_name_the_layers_of_the_file() -> None:
    """Breaks: layer names are lost between ONNX and the plan."""
    steps = lower(small_network(), HOST, 1).plan.steps
    named = [(step.kind, step.layer) for step in steps if step.kind != "float"]
    assert named == [("pack", "block.sign"), ("pack", "block.binary"), ("binary", "block.binary")]
    assert "head + head_dist" in steps[-1].layer
    assert all(step.layer.strip(" +") for step in steps), [step.layer for step in steps]


def test_equal_kernels_are_one_symbol() -> None:
    """Breaks: code size grows with the depth of the network."""
    geometry = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "group": 1, "in_channels": 32}
    nodes, value = [], "x"
    for i in range(4):
        nodes.append(node("Sign", f"{value} zero", f"s{i}"))
        nodes.append(node("BinaryConv", f"s{i} w{i}", f"c{i}", **geometry))
        nodes.append(node("Relu", f"c{i}", f"r{i}"))
        value = f"r{i}"
    nodes.append(node("Identity", value, "y"))
    constants = {"zero": np.zeros(1, "float32")} | {f"w{i}": packed(32, 32, seed=i) for i in range(4)}
    lowered = lower(model(nodes, [1, 32, 4, 4], constants), HOST, 1)
    for kind in ("pack", "binary"):
        assert len({step.kernel for step in lowered.plan.steps if step.kind == kind}) == 1


def test_dump_ir_writes_one_numbered_file_per_pass(tmp_path: Path) -> None:
    """Breaks: --dump-ir misses a pass, or its files do not sort in the order of the passes."""
    lower(small_network(), HOST, 1, dump_ir=tmp_path)
    files = sorted(tmp_path.iterdir())
    assert [file.stem for file in files] == [f"{i:02d}_{name}" for i, name in enumerate(PASSES, 1)]
    assert [file.suffix for file in files] == [".onnx"] * 2 + [".txt"] * (len(PASSES) - 2)
    onnx.checker.check_model(onnx.load(files[1]))
    texts = {file.stem[3:]: file.read_text() for file in files[2:]}
    assert "bnn.conv2d" in texts["import_onnx"] and "bnn.packed_conv2d" in texts["pack"]
    assert "bnn.packed_conv2d" not in texts["lower_binary"]
    assert "block.binary" in texts["plan_memory"] and "arena" in texts["plan_memory"]


def test_progress_names_every_pass_in_order() -> None:
    """Breaks: the progress display stands still or tells another pass."""
    seen: list[str] = []
    lower(small_network(), HOST, 1, progress=seen.append)
    assert seen == PASSES


def test_passes_that_depend_on_the_core_run_for_every_kernel_set() -> None:
    """Breaks: a kind of cores gets no kernels of its own, or the kernels of two kinds share a C symbol."""
    target = get_target("arm64")
    assert [name for name, _ in target.variants] == ["out-of-order", "in-order"]
    seen: list[str] = []
    lowered = lower(small_network(), target, 1, progress=seen.append)
    assert seen == [*PASSES, *(f"{name}_in_order" for name in PASSES[PASSES.index("fuse_epilogue") :])]
    first, second = ({variable.name_hint for variable in kernels.get_global_vars()} for kernels in lowered.kernels)
    assert not first & second and all(symbol.endswith("_in_order") for symbol in second)


@pytest.mark.parametrize("name", ["merge_heads", "fold_affine", "plan_memory"])
def test_a_crash_inside_a_pass_names_the_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a defect reaches the user as a traceback that says neither where nor what to do."""

    def crash(*arguments: object) -> None:
        raise RuntimeError("first line\nindex out of range")

    crash.__name__ = name
    monkeypatch.setattr(pipeline, name, crash)
    with pytest.raises(
        CompileError, match=f"pass '{name}' failed on this model: index out of range .*report it"
    ) as caught:
        lower(small_network(), HOST, 1)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_crash_without_a_message_names_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: the error about an error crashes."""

    def crash(*arguments: object) -> None:
        raise NotImplementedError

    crash.__name__ = "pack"
    monkeypatch.setattr(pipeline, "pack", crash)
    with pytest.raises(CompileError, match="pass 'pack' failed on this model: NotImplementedError"):
        lower(small_network(), HOST, 1)


def test_unsupported_operator_names_its_node() -> None:
    """Breaks: the user's own mistake is reported as a defect of bnn-deploy, without the node."""
    network = model([node("Det", "x", "y", "head.determinant")], [1, 3, 3], {}, rank=1)
    with pytest.raises(ModelFileError, match=r"Node 'head.determinant' has operator 'ai.onnx.Det'"):
        lower(network, HOST, 1)
