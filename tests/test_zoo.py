"""The models of the list, from PyTorch to bundles: counts, file size, onnxruntime, this machine, arm64 under qemu, and GPUs.

All run at their papers' 224x224 input. Every model with kernels of its own is compiled; for this machine, for arm64, or for
both: backbones and blocks run on both, but not with every head and normalisation that they come with.

Weights are seeded and calibrated on the two images that are compared, so that every activation keeps a margin from its
threshold; a correct implementation then flips no bit, and logits differ by rounding only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.compiler import compile_model
from bnn_deploy.devices import qemu
from bnn_deploy.devices.qemu import find_qemu
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import ToolError
from bnn_deploy.export.export_model import export_model
from bnn_deploy.frontend.open_model import open_model
from bnn_deploy.metadata.calibration import calibration_inputs
from bnn_deploy.models.bimlp import BIMLP_M, BIMLP_S
from bnn_deploy.models.calibration import CalibrationReport, seeded_model
from bnn_deploy.models.layers import BinaryConv2d, BinaryLinear
from bnn_deploy.models.registry import MODELS, build_model, input_shape
from bnn_deploy.onnx_files.statistics import model_statistics
from bnn_deploy.passes.pipeline import Lowered, lower_packed, pack_network
from bnn_deploy.targets.cuda import CUDA_TARGETS
from bnn_deploy.targets.cuda.architectures import architecture
from tests.cuda.networks import check_machine_code, logits_on_fake_gpu

SAMPLES = 2

# Rounding. Float32 rounds to 2^-24 = 6e-8 relative per operation. No path from input to logits has more than 40 float
# operations per block in 26 blocks (BiMLP-M), and the values that meet on it are sums of at most a few terms of like size, so
# two correct implementations differ by less than 40 * 26 * 2^-24 = 6.2e-5 of a value's scale anywhere: below MARGIN, the
# least distance (relative to the layer's rms) that calibration leaves. Logits are scaled to a few units: 6.2e-5 * 16 = 1e-3.
ROUNDING = 40 * 26 * 2.0**-24
LOGITS = 1e-3


@dataclass(frozen=True)
class Figures:
    """What the papers, or the authors' code counted at 224x224, report; None where only bounds are printed."""

    bops: float
    flops: float
    binary_params: float
    real_params: float


# REFERENCE figures with as many digits as are known; a count must round to them. BiMLP's FLOPs include biases; both its variants
# have the same layers. BCDNet's two heads count as one in FLOPs and as two in parameters.
FIGURES = {
    "reactnet_a": Figures(4.8169e9, 11.862e6, 28.25e6, 1.09e6),
    "bcdnet_a": Figures(4.8169e9, 11.862e6, 43.98e6, 2.16e6),
    "bcdnet_b": Figures(4.8169e9, 13.776e6, 43.98e6, 4.09e6),
    "reactnet_r18": Figures(1.6763e9, 137.79e6, 10.99e6, 0.72e6),
    "bcdnet_a_r18": Figures(1.6763e9, 137.79e6, 10.99e6, 0.74e6),
    "bcdnet_b_r18": Figures(1.6763e9, 138.08e6, 10.99e6, 1.02e6),
    "bimlp_s": Figures(2.2418e9, 120.89e6, 14.74e6, 1.10e6),
    "bimlp_m": Figures(4.3094e9, 120.89e6, 28.24e6, 1.45e6),
}


@dataclass(frozen=True)
class Exported:
    """One model on its way: its calibration, the file, the two images and PyTorch's logits."""

    report: CalibrationReport
    path: Path
    images: np.ndarray
    logits: np.ndarray


@pytest.fixture(scope="class")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The model of the class that asks, exported once for it."""
    name = request.cls.name
    model, report = seeded_model(name, 0, SAMPLES, variant=request.cls.variant)
    images = calibration_inputs(0, SAMPLES, input_shape(name))
    path = tmp_path_factory.mktemp("zoo") / f"{name}.onnx"
    metadata = {"bnn_deploy.counts_biases": "1"} if getattr(model, "counts_biases", False) else {}
    # A fixed batch halves the time of the export; the tiny models are exported with a dynamic one in tests/export.
    export_model(model, path, input_shape=input_shape(name), batch=SAMPLES, metadata=metadata)
    with torch.no_grad():
        logits = model(torch.from_numpy(images)).numpy()
    return Exported(report, path, images, logits)


def agree(logits: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(logits.argmax(axis=1), expected.argmax(axis=1))
    assert np.abs(logits - expected).max() < LOGITS


class Zoo:
    """What holds for every model; one subclass each, so that `pytest -n` can spread them (--dist loadscope)."""

    name: str
    variant: str | None = None

    def test_margin_exceeds_rounding(self, exported: Exported) -> None:
        """Without the margin, a flipped bit would be nobody's fault and the comparisons below would prove nothing."""
        assert exported.report.smallest.relative > ROUNDING

    def test_counts(self, exported: Exported) -> None:
        """`inspect` would print other operation and parameter counts than the papers."""
        size = exported.path.stat().st_size
        counts = model_statistics(onnx.load(exported.path), size)
        figures = FIGURES[self.name]
        assert counts.bops == pytest.approx(figures.bops, abs=0.5e5)  # five digits of 1e9
        assert counts.flops == pytest.approx(figures.flops, abs=0.5e4 if figures.flops >= 1e8 else 0.5e3)
        assert counts.binary_params == pytest.approx(figures.binary_params, abs=0.5e4)
        assert counts.real_params == pytest.approx(figures.real_params, abs=0.5e4)
        assert counts.ops == counts.bops / 64 + counts.flops
        assert size < 1.1 * (counts.binary_params / 8 + 4 * counts.real_params)

    def test_onnxruntime(self, exported: Exported) -> None:
        """The exported file would mean something else to other runtimes than the PyTorch model."""
        onnx.checker.check_model(onnx.load(exported.path), full_check=True)
        session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
        agree(session.run(None, {"input": exported.images})[0], exported.logits)


class OnEveryGpu:
    """And for the presets of GPUs: their machine code, unless another model with the same binary layers is compiled for them."""

    def test_gpu_presets(self, exported: Exported) -> None:
        """The model would not compile for a Jetson's GPU or an H200, or its layers would not be native instructions there."""
        network = pack_network(open_model(exported.path, None, lambda message: None).model, SAMPLES)
        lowered: dict[str, Lowered] = {}
        for target in CUDA_TARGETS:
            # GPUs with the same instruction and without tensor cores have the same kernels; tests/cuda holds that.
            instruction = architecture(target.gpu.sm).dot_product
            if instruction not in lowered:
                lowered[instruction] = lower_packed(network, target)
            check_machine_code(lowered[instruction], target)


class OnAGpu:
    """And for the bundle for one of them, on a driver that runs its kernels on the processor."""

    gpu_target = "h200"

    def test_gpu_bundle(self, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The model compiled for a GPU would classify differently than PyTorch: kernels, plan or runtime."""
        logits = logits_on_fake_gpu(exported.path, exported.images, self.gpu_target, tmp_path, monkeypatch)
        agree(logits, exported.logits)


class OnThisMachine:
    """And for the bundle for this machine."""

    def test_host_bundle(self, exported: Exported, tmp_path: Path) -> None:
        """The model compiled for this machine would classify differently than PyTorch."""
        bundle = compile_model(exported.path, "host", tmp_path / "bundle", batch=SAMPLES)
        agree(get_device("local").run(bundle, exported.images, threads=2), exported.logits)


class OnArm64:
    """And for the bundle for a board."""

    arm_target = "rpi4"

    @pytest.mark.qemu
    def test_arm64_bundle(self, exported: Exported, tmp_path: Path) -> None:
        """The model compiled for a Raspberry Pi would classify differently than PyTorch."""
        try:
            find_qemu()
        except ToolError as error:
            pytest.skip(str(error))
        bundle = compile_model(exported.path, self.arm_target, tmp_path / "bundle", batch=SAMPLES)
        agree(get_device("qemu").run(bundle, exported.images, threads=2), exported.logits)


class OnBothKindsOfCores(OnArm64):
    """And for the bundle that has kernels for in-order and for out-of-order cores."""

    arm_target = "arm64"

    @pytest.mark.qemu
    def test_arm64_bundle(self, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One file for Raspberry Pi 3 and 4 would compute different bits on them, or others than PyTorch."""
        super().test_arm64_bundle(exported, tmp_path)
        bundle = Bundle.open(tmp_path / "bundle")
        logits = []
        for core in ("cortex-a53", "cortex-a72"):
            monkeypatch.setattr(qemu, "emulated_core", lambda *_, core=core: core)
            session = get_device("qemu").open(bundle, threads=2)
            logits.append(session.run(exported.images))
            agree(logits[-1], exported.logits)
        np.testing.assert_array_equal(*logits)


class TestBiMLPSPaper(Zoo, OnThisMachine, OnArm64, OnAGpu, OnEveryGpu):
    name = "bimlp_s"
    variant = "paper"
    gpu_target = "cuda-sm_87"


class TestBiMLPMReleased(Zoo, OnThisMachine):
    name = "bimlp_m"
    variant = "released"


class TestBiMLPSReleased(Zoo, OnArm64, OnAGpu, OnEveryGpu):
    name = "bimlp_s"
    variant = "released"


class TestBCDNetA(Zoo, OnThisMachine, OnBothKindsOfCores, OnAGpu):
    name = "bcdnet_a"


class TestBCDNetB(Zoo, OnThisMachine, OnAGpu):
    name = "bcdnet_b"
    gpu_target = "cuda-sm_86"


class TestBCDNetAOnResNet18(Zoo, OnThisMachine, OnAGpu, OnEveryGpu):
    name = "bcdnet_a_r18"
    gpu_target = "cuda-sm_75"


class TestBCDNetBOnResNet18(Zoo, OnThisMachine, OnArm64, OnAGpu):
    name = "bcdnet_b_r18"


class TestReActNetA(Zoo, OnThisMachine, OnAGpu, OnEveryGpu):
    name = "reactnet_a"
    gpu_target = "cuda-sm_53"


class TestReActNetOnResNet18(Zoo, OnThisMachine, OnAGpu, OnEveryGpu):
    name = "reactnet_r18"
    gpu_target = "cuda-sm_72"


def test_bimlp_m_of_the_paper_is_bimlp_s_with_more_blocks() -> None:
    """BiMLP-M as in the paper, which no class compiles, would have other kernels than BiMLP-S has."""
    assert BIMLP_M.variant("paper") == BIMLP_S.variant("paper")
    assert replace(BIMLP_M, depths=BIMLP_S.depths, released_group_norm=BIMLP_S.released_group_norm) == BIMLP_S
    # What is between two blocks is fused with them, so a stage of S needs two to have what M repeats.
    assert all(2 <= s <= m for s, m in zip(BIMLP_S.depths, BIMLP_M.depths, strict=True))


def binary_layers(zoo: type[Zoo]) -> set[tuple[str, tuple[int, ...]]]:
    """Sizes of the binary layers of a model, and of what each is given for one image."""
    found = set()

    def hook(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        found.add((layer.extra_repr(), tuple(inputs[0].shape)))

    with torch.device("meta"), torch.no_grad():
        model = build_model(zoo.name, variant=zoo.variant).eval()
        for layer in model.modules():
            if isinstance(layer, (BinaryConv2d, BinaryLinear)):
                layer.register_forward_hook(hook)
        model(torch.zeros(1, *input_shape(zoo.name)))
    return found


# Models that are not compiled for all presets of GPUs, and the one that is in their place.
IN_PLACE_OF = {
    TestBiMLPMReleased: TestBiMLPSReleased,
    TestBCDNetA: TestReActNetA,
    TestBCDNetB: TestReActNetA,
    TestBCDNetBOnResNet18: TestBCDNetAOnResNet18,
}


@pytest.mark.parametrize("zoo", IN_PLACE_OF)
def test_binary_layers_of_models_that_are_not_compiled_for_every_gpu(zoo: type[Zoo]) -> None:
    """A binary layer of the model is in none that is compiled for the presets of GPUs, and so maybe not native there."""
    assert issubclass(IN_PLACE_OF[zoo], OnEveryGpu)
    layers = binary_layers(zoo)
    assert layers and layers <= binary_layers(IN_PLACE_OF[zoo])


def test_zoo_is_complete() -> None:
    """A model added to the registry would be checked against nothing, or its bundles would."""
    classes = [zoo for zoo in Zoo.__subclasses__() if issubclass(zoo, (OnThisMachine, OnArm64))]
    assert all(issubclass(zoo, OnEveryGpu) or zoo in IN_PLACE_OF for zoo in classes)
    tested = {(zoo.name, zoo.variant) for zoo in classes} | {("bimlp_m", "paper")}
    listed = {(name, variant) for name, spec in MODELS.items() for variant in (spec.variants or (None,))}
    assert tested == {(name, variant) for name, variant in listed if not name.endswith("_tiny")}
