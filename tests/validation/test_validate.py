"""``validate`` must find every difference between a bundle and its model, and none where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.data.open_dataset import open_dataset
from bnn_deploy.errors import InputError, ModelFileError
from bnn_deploy.export.provenance import build, parameters_sha256, rebuild
from bnn_deploy.metadata.calibration import calibration_inputs
from bnn_deploy.references.batches import fill_batch
from bnn_deploy.references.whole_model import open_reference
from bnn_deploy.runtime.arrays import batch_size
from bnn_deploy.validation.model_level import Comparison, compare, wilson_interval
from bnn_deploy.validation.report import ModelResult, ValidationReport
from bnn_deploy.validation.validate import validate

Invoke = Callable[..., Result]

# The bound of issue 2 on logits. What float32 permits is less: logits are of order 1, each a sum of 64 products (2**-24
# relative each), behind some tens of float layers of the same kind; no bit can flip, for the inputs keep a margin.
LOGIT_BOUND = 1e-3
DAMAGED = 50.0


def model_of(report: ValidationReport) -> ModelResult:
    """Level 3 of a report that must have it."""
    assert report.model is not None
    return report.model


def altered(path: Path, output: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, output)
    return output


def change_head(
    model: onnx.ModelProto, weight: Callable[[np.ndarray], np.ndarray], bias: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Change the parameters of the last fully connected layer, (10, 64) and (10,)."""
    head = next(node for node in model.graph.node if node.op_type == "Gemm")
    for name, change in zip(head.input[1:], (weight, bias), strict=True):
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        values = change(onnx.numpy_helper.to_array(tensor)).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))


def with_metadata(path: Path, output: Path, **changes: str | None) -> Path:
    def change(model: onnx.ModelProto) -> None:
        metadata = {item.key: item.value for item in model.metadata_props}
        metadata.update({f"bnn_deploy.{key}": value for key, value in changes.items() if value is not None})
        for key in [f"bnn_deploy.{key}" for key, value in changes.items() if value is None]:
            del metadata[key]
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, metadata)

    return altered(path, output, change)


def test_counts_and_errors() -> None:
    """Breaks if agreement, errors or accuracies are counted wrongly, or not across batches."""
    comparison = Comparison()
    comparison.add(np.array([[1, 2, 0], [5, 1, 0.0]]), np.array([[1, 2.5, 0], [1, 5, 0.0]]), np.array([1, 0]))
    comparison.add(np.array([[0, 0, 1.0]]), np.array([[0, 0, 1.0]]), np.array([0]))
    report = comparison.result()
    assert (report.samples, report.agreements, report.top1_agreement) == (3, 2, 2 / 3)
    assert report.max_abs_error == 4.0
    assert report.mean_abs_error == pytest.approx((0.5 + 4 + 4) / 9)
    assert (report.reference_top1, report.bundle_top1) == (2 / 3, 1 / 3)
    assert comparison.warnings() == [] and report.passed is False


def test_ties() -> None:
    """Breaks if equal logits are compared by anything but the first of them, in either model."""
    comparison = Comparison()
    comparison.add(np.array([[1, 1, 0.0], [1, 1, 0.0]]), np.array([[1, 0, 1.0], [0, 1, 1.0]]), None)
    report = comparison.result()
    assert report.agreements == 1
    assert report.reference_top1 is None and report.bundle_top1 is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("both", [False, True])
def test_non_finite_logits_disagree(bad: float, both: bool) -> None:
    """Breaks if a bundle that computes NaN (whose argmax is the same NaN's) passes, or makes the JSON invalid."""
    expected, found = np.array([[1, 2.0], [3, 4.0]]), np.array([[1, 2.0], [bad, 4.0]])
    comparison = Comparison()
    comparison.add(found if both else expected, found, np.array([1, 0]))
    report = comparison.result()
    assert (report.agreements, report.non_finite_samples, report.max_abs_error) == (1, 1, 0.0)
    assert report.bundle_top1 == 0.5 and "1 samples have NaN" in comparison.warnings()[0]
    json.dumps(asdict(report), allow_nan=False)
    only = Comparison()
    only.add(expected[1:], found[1:], None)
    assert only.result().max_abs_error is None


def test_wilson_interval() -> None:
    """Breaks if the interval is not Wilson's: values of Newcombe 1998, table I (81/263, 15/148, 0/20), printed to 4 digits."""
    for successes, trials, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]:
        # Half of the last printed digit.
        assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(20, 20) == pytest.approx((1 - 0.1611, 1.0), abs=5e-5)


@given(sides=st.integers(1, 600), unit=st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_batch_size(sides: int, unit: int) -> None:
    """Breaks if a batch is not whole calls of both models, or large images take more than 4 MiB without need."""
    size = batch_size((3, sides, sides), unit)
    assert size % unit == 0 and size >= unit
    assert size == unit or (size <= 64 and size * 12 * sides * sides <= 4 * 2**20)


@given(count=st.integers(1, 30), unit=st.integers(0, 7), size=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_fixed_batches(count: int, unit: int, size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Breaks if a file of a fixed batch cannot be run on other numbers of images, or those that fill it up are counted."""
    folder = tmp_path_factory.mktemp("data")
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((count, 3), dtype=np.float32))
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [unit or "n", 3]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "negative", values[:1], values[1:])
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "x.onnx")
    reference = open_reference("onnxruntime", folder / "x.onnx")
    assert (reference.batch, reference.classes) == (unit or 1, 3)
    dataset = open_dataset(folder / "x.npy", (3,), 3)
    comparison = compare(dataset, count, reference.run, lambda batches: (-images for images in batches), size)
    assert comparison.samples == comparison.agreements == count and comparison.max_error == 0
    filled = fill_batch(dataset_of(count), unit or 1)
    assert len(filled) % (unit or 1) == 0 and len(filled) - count < (unit or 1)
    assert (filled[:count] == dataset_of(count)).all() and (filled[count:] == count - 1).all()


def dataset_of(count: int) -> np.ndarray:
    """Images that are their numbers."""
    return np.arange(count, dtype=np.float32).reshape(-1, 1)


@pytest.mark.parametrize("reference", ["onnxruntime", "torch"])
def test_correct_bundle_passes(reference: str, tiny_onnx: Path, tiny_bundle: Path) -> None:
    """Breaks if a bundle computes something else than the model that it was compiled from, by either reference."""
    messages: list[str] = []
    report = validate(tiny_onnx, Bundle.open(tiny_bundle), reference=reference, progress=messages.append)
    result = model_of(report)
    assert (result.top1_agreement, result.samples, report.warnings) == (1.0, 2, ())
    assert result.max_abs_error is not None and result.max_abs_error <= LOGIT_BOUND
    assert report.data == "2 calibration inputs, seed 0"
    assert messages[-1] == "compared 2 of 2 images"


def test_odd_number_of_samples(tiny_onnx: Path, tiny_bundle: Path) -> None:
    """Breaks if a bundle of batch 2 cannot be compared on 1 or 5 images, or inputs without margin go unmentioned."""
    bundle = Bundle.open(tiny_bundle)
    assert model_of(validate(tiny_onnx, bundle, samples=1)).samples == 1
    report = validate(tiny_onnx, bundle, samples=5)
    assert model_of(report).samples == 5 and model_of(report).agreements >= 2
    assert report.data == "2 calibration inputs, seed 0, then 3 normal inputs, seed 0"
    assert len(report.warnings) == 1 and "no margin" in report.warnings[0]


def test_labelled_data(tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Breaks if --data is not what is compared, or accuracy is not that of the labels."""
    images = calibration_inputs(0, 2, (1, 8, 8))
    classes = open_reference("onnxruntime", tiny_onnx).run(images).argmax(axis=1)
    np.savez(tmp_path / "x.npz", x=images, y=np.array([classes[0], (classes[1] + 1) % 10]))
    report = model_of(validate(tiny_onnx, Bundle.open(tiny_bundle), data=tmp_path / "x.npz"))
    assert (report.samples, report.agreements, report.reference_top1, report.bundle_top1) == (2, 2, 0.5, 0.5)
    with pytest.raises(InputError, match="holds 2 images, fewer than --samples 3"):
        validate(tiny_onnx, Bundle.open(tiny_bundle), data=tmp_path / "x.npz", samples=3)


def test_damaged_model_fails(tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if a bundle whose model is another one passes, or it is not said that it came from another file."""

    def shift_one_logit(bias: np.ndarray) -> np.ndarray:
        return bias + DAMAGED * (np.arange(10) == 3)

    damaged = altered(
        tiny_onnx, tmp_path / "damaged.onnx", lambda model: change_head(model, lambda w: w, shift_one_logit)
    )
    result = invoke("validate", damaged, "--bundle", tiny_bundle, "--format", "json")
    assert result.exit_code == 1, result.stderr
    report = json.loads(result.stdout)
    assert report["passed"] is False and report["model"]["top1_agreement"] < 1
    # The other bias is exact in float32 up to half a unit in the last place of 50, which is 2**-19.
    assert report["model"]["max_abs_error"] == pytest.approx(DAMAGED, abs=LOGIT_BOUND)
    assert "compiled from another file" in result.stderr
    lenient = invoke("validate", damaged, "--bundle", tiny_bundle, "--level", 3, "--min-agreement", 0)
    assert lenient.exit_code == 0 and "passed" in lenient.stdout


def test_other_shape_is_refused(tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if a bundle is compared with a model of other classes or images."""

    def seven_classes(model: onnx.ModelProto) -> None:
        change_head(model, lambda weight: weight[:7], lambda bias: bias[:7])
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7

    other = altered(tiny_onnx, tmp_path / "other.onnx", seven_classes)
    result = invoke("validate", other, "--bundle", tiny_bundle)
    assert result.exit_code == 2 and "to 7 logits, but the bundle" in result.stderr


def test_torch_with_weights_of_a_file(tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if PyTorch is compared with weights that are not those exported, or the right file is refused."""
    import torch

    metadata = {item.key: item.value for item in onnx.load(tiny_onnx).metadata_props}
    model = rebuild(metadata, None, tiny_onnx, (1, 8, 8), 10).module
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    # What export --weights writes for these weights, see tests/cli/test_export.py.
    exported = with_metadata(tiny_onnx, tmp_path / "x.onnx", calibration=None, weights="weights.pt")
    compare_with = ("validate", exported, "--bundle", tiny_bundle, "--reference", "torch", "--format", "json")
    missing = invoke(*compare_with)
    assert missing.exit_code == 2 and "give the same file with --weights" in missing.stderr
    passed = invoke(*compare_with, "--weights", tmp_path / "weights.pt", "--min-agreement", 0)
    assert passed.exit_code == 0 and json.loads(passed.stdout)["model"]["samples"] == 16
    with torch.no_grad():
        next(model.parameters()).add_(1)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    wrong = invoke(*compare_with, "--weights", tmp_path / "weights.pt")
    assert wrong.exit_code == 2 and "holds other weights" in wrong.stderr


def test_parameters_sha256() -> None:
    """Breaks if two models with different weights count as the same."""
    from torch import nn

    layer = nn.Linear(3, 2)
    before = parameters_sha256(layer)
    assert before == parameters_sha256(layer)
    layer.weight.data[0, 0] += 1e-6
    assert parameters_sha256(layer) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "metadata do not say how to build it"),
        ({"model": "resnet"}, "There is no model 'resnet'"),
        ({"num_classes": "many"}, "num_classes is 'many', not a number"),
        ({"num_classes": "9" * 100}, "not a number"),
        ({"input_size": "16"}, r"its metadata describe bimlp_tiny from \(1, 16, 16\) to 10"),
        ({"num_classes": "1000000"}, "to 1000000; export it again"),
        ({"weights_sha256": "0" * 64}, "cannot be made again here"),
        ({"calibration": "{"}, "cannot be understood"),
        ({"calibration": '{"seed": -1, "samples": 2, "shape": [1, 8, 8], "kind": "normal"}'}, "cannot be understood"),
        ({"calibration": None}, "exported with the weights"),
    ],
)
def test_bad_metadata(changes: dict[str, str | None], message: str, tiny_onnx: Path, tmp_path: Path) -> None:
    """Breaks if metadata of an untrusted file crash, or build a model that the file does not hold."""
    path = with_metadata(tiny_onnx, tmp_path / "x.onnx", **changes)
    with pytest.raises((ModelFileError, InputError), match=message):
        open_reference("torch", path)


def test_seeded_weights_do_not_depend_on_threads() -> None:
    """Breaks if a model exported with another number of cores cannot be compared with PyTorch here."""
    import torch

    threads, digests = torch.get_num_threads(), set()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            # The released variant's GroupNorm sums over many values, and so showed the difference.
            digests.add(build("bimlp_tiny", variant="released").metadata["bnn_deploy.weights_sha256"])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert len(digests) == 1


def test_enormous_calibration_is_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    """Breaks if a file's metadata can make validate allocate any amount of memory."""
    entry = json.dumps({"seed": 0, "samples": 10**12, "shape": [1, 8, 8], "kind": "normal"})
    reference = open_reference("onnxruntime", with_metadata(tiny_onnx, tmp_path / "x.onnx", calibration=entry))
    with pytest.raises(InputError):
        reference.default_dataset(None)


def test_references_refuse_nonsense(tiny_onnx: Path, tmp_path: Path) -> None:
    """Breaks if an unknown reference or unused --weights is silently ignored."""
    with pytest.raises(InputError, match="Unknown reference"):
        open_reference("tensorflow", tiny_onnx)
    with pytest.raises(InputError, match="--weights is for --reference torch"):
        open_reference("onnxruntime", tiny_onnx, tmp_path)
    with pytest.raises(ModelFileError, match="leave --weights out"):
        open_reference("torch", tiny_onnx, tmp_path)


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs qemu-aarch64")
def test_arm64_under_qemu(tiny_onnx: Path, arm_compilation: tuple[Path, Result], invoke: Invoke) -> None:
    """Breaks if the arm64 bundle computes something else, or emulated times are printed as latencies."""
    bundle = arm_compilation[0] / "bundle"
    passed = invoke(
        "validate", tiny_onnx, "--bundle", bundle, "--device", "qemu", "--reference", "torch", "--format", "json"
    )
    assert passed.exit_code == 0, passed.stderr
    assert json.loads(passed.stdout)["model"]["max_abs_error"] <= LOGIT_BOUND
    profile = invoke("profile", bundle, "--device", "qemu", "--repeat", 2, "--format", "json")
    (board,) = json.loads(profile.stdout)["boards"]
    assert board["emulated"] is True and "no latencies" in profile.stderr
    assert "not a latency" in invoke("profile", bundle, "--device", "qemu", "--repeat", 2).stdout
    local = invoke("validate", tiny_onnx, "--bundle", bundle)
    assert local.exit_code == 2 and "--device qemu" in local.stderr
