"""1x1 layers that read shifted words: as if the words had been moved first, on tensor cores and with __popc, and in a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from bnn_deploy.codegen.cuda_compiler import compile_cuda
from bnn_deploy.compiler import open_model
from bnn_deploy.errors import CompileError
from bnn_deploy.export.export_model import export_model
from bnn_deploy.metadata.calibration import calibration_inputs
from bnn_deploy.models.bcdnet import BCDNet, BCDNetConfig
from bnn_deploy.models.calibration import calibrate
from bnn_deploy.passes.pipeline import lower_packed, pack_network
from bnn_deploy.passes.tir.cuda_source import cuda_source, device_kernels
from bnn_deploy.passes.tir.raw_pointers import raw_pointers
from bnn_deploy.targets.base import Gpu, Target
from bnn_deploy.targets.cuda import CUDA_TARGETS
from bnn_deploy.targets.cuda.architectures import architecture
from bnn_deploy.targets.cuda.kernels import mma_conv2d, popcount_conv2d
from bnn_deploy.targets.cuda.kernels.mma_tiling import TILES, MmaTiling, choose_tiling
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.specification import MOST_SEGMENTS, ConvolutionSpecification
from bnn_deploy.targets.registry import get_target
from bnn_deploy.targets.table import select_gpu_kernel, select_kernel, takes_shifts
from tests.cuda.disassembly import assert_native, kernel_code
from tests.cuda.networks import logits_on_fake_gpu
from tests.cuda.serial import serial_mismatches
from tests.targets import reference
from tests.targets.cases import Case, factors, layer

# ShiftBlock: quarters move down, up, right and left.
QUARTERS = ((0, 2, 1, 0), (2, 2, -1, 0), (4, 2, 0, 1), (6, 2, 0, -1))
STAGE = ((0, 8, 1, 0), (8, 8, -1, 0), (16, 8, 0, 1), (24, 8, 0, -1))
LAYERS = {
    "pieces of two words": layer((2, 7, 7, 256), 40, shifts=QUARTERS),
    "pieces of four": layer((2, 5, 3, 512), 64, shifts=((12, 4, 2, -1), (0, 8, 0, 0), (8, 4, -7, 5))),
    "single words, also twice": layer((1, 3, 5, 160), 33, shifts=((3, 1, 1, 1), (0, 3, -1, 2), (3, 1, 0, -1))),
    "one segment, last word not full": layer((3, 1, 4, 70), 10, shifts=((0, 3, 5, -3),)),
    "as many segments as there may be": layer(
        (1, 4, 4, 480), 32, shifts=tuple((14 - i, 1, i - 7, 5 * i) for i in range(MOST_SEGMENTS))
    ),
    "a pixel": layer((2, 1, 1, 128), 32, shifts=((2, 2, 1, 0), (0, 2, 0, -1))),
    "whole tiles, two chunks": layer((2, 8, 8, 1024), 64, shifts=STAGE),
}


def on_tensor_cores(sm: int, specification: ConvolutionSpecification, number: int) -> Kernel:
    """Not in the largest tiles, which LLVM takes longest for."""
    tiles = TILES[3:]
    return mma_conv2d.tiled_kernel(MmaTiling(specification, Gpu(sm), tiles[number % len(tiles)]))


def with_popcounts(specification: ConvolutionSpecification, number: int) -> Kernel:
    return popcount_conv2d.kernel(specification, Gpu(53))


KERNELS = {
    "xor": partial(on_tensor_cores, 87),
    "xor, no cp.async": partial(on_tensor_cores, 75),
    "and": partial(on_tensor_cores, 90),
    "popc": with_popcounts,
}


def moved(values: np.ndarray, specification: ConvolutionSpecification) -> np.ndarray:
    """Channels (N, H, W, C) as ``shift_words`` moves their words."""
    parts = [
        np.roll(values[..., 32 * first : 32 * (first + count)], (-rows, -columns), (1, 2))
        for first, count, rows, columns in specification.shifts
    ]
    return np.concatenate(parts, axis=3)


def shifted_case(name: str, made: Kernel, seed: int) -> Case:
    """A call on random words, and the layer without shifts of the words that are moved."""
    random, spec = np.random.default_rng(seed), made.specification
    signs, packed = reference.random_weights(random, spec)
    values = reference.random_values(random, spec)
    scale, shift = factors(random, (spec.out_channels,)), factors(random, (spec.out_channels,))
    expected = reference.convolution(moved(values, spec), signs, scale, shift, spec)
    return Case(name, made, (reference.pack_values(values, spec), made.pack_weights(packed), scale, shift), expected)


@pytest.mark.parametrize("kind", KERNELS)
def test_words_of_other_pixels(kind: str, tmp_path: Path) -> None:
    """A branch of a ShiftBlock sees another pixel or word than PyTorch's roll gives it, or reads outside of the image."""
    make: Callable[[ConvolutionSpecification, int], Kernel] = KERNELS[kind]
    cases = [shifted_case(name, make(shape, number), number) for number, (name, shape) in enumerate(LAYERS.items())]
    assert serial_mismatches(cases, tmp_path) == []


def test_the_pieces_of_segments() -> None:
    """The layers above leave out a width of copies."""
    widths = {choose_tiling(shape, Gpu(87)).copy_words for shape in LAYERS.values()}
    assert widths == {1, 2, 4}


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel_shape": (3, 3)},
        {"strides": (2, 2)},
        {"pads": (1, 0, 0, 0)},
        {"group": 2},
        {"ternary": True},
        {"tap_scaled": True},
        {"block_rows": 1},
        {"in_channels": 288},
        {"in_channels": 224},
        {"shifts": ((0, 8, 0, 0),) * 2},
        {"shifts": ((-1, 8, 0, 0),)},
        {"shifts": ((0, 1, 0, 0),) * 8 + ((0, 0, 0, 0),)},
        {"in_channels": 512, "shifts": ((0, 1, 0, 0),) * 16},
    ],
    ids=str,
)
def test_impossible_shifts_are_refused(changes: dict[str, object]) -> None:
    """A defect of a pass becomes a read outside of the image, or a layer that ignores its shifts."""
    shape = LAYERS["pieces of two words"]
    with pytest.raises(CompileError, match="A convolution shifts words only"):
        replace(shape, **changes)
    plain = replace(shape, **changes | {"shifts": ()})
    assert not plain.may_shift(changes.get("shifts", QUARTERS))


def test_processors_refuse_shifts() -> None:
    """A kernel of a processor, which knows of no shifts, computes a layer with them."""
    shape = LAYERS["pieces of two words"]
    assert takes_shifts(replace(shape, shifts=()), QUARTERS, get_target("orin"))
    assert not takes_shifts(replace(shape, shifts=()), QUARTERS, get_target("rpi4"))
    with pytest.raises(CompileError, match="No kernel of a processor"):
        select_kernel(shape, get_target("rpi4"))


@pytest.mark.parametrize("sm", [53, 75, 87, 90])
def test_machine_code(sm: int) -> None:
    """NVRTC refuses a kernel, or it keeps in memory what should be in registers."""
    for batch in (1, 64):
        made = select_gpu_kernel(layer((batch, 7, 7, 1024), 1024, shifts=STAGE), Gpu(sm))
        raw = raw_pointers(made.build().with_attr("bnn.kernel", "layer"), "bnn_kernel_layer").function
        compiled = compile_cuda(cuda_source(device_kernels(raw)[0], sm), sm)
        assert ".local" not in compiled.ptx
        (code,) = kernel_code(compiled.cubin).values()
        assert_native(code, architecture(sm).dot_product)
        assert not any(opcode.startswith(("LDL", "STL")) for opcode in code.opcodes)


# 5x3 pixels of 128 channels in the ShiftBlocks: a quarter is a word, and rolls by 3 columns are none.
NETWORK = BCDNetConfig(stem=32, blocks=((64, 2), (128, 2)), mlp_blocks=1)
IMAGES = calibration_inputs(0, 2, (3, 40, 24))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A small BCDNet-A whose rolls move whole words, as ONNX, and its logits of ``IMAGES`` in PyTorch."""
    torch.manual_seed(0)
    model = BCDNet(NETWORK, num_classes=10)
    calibrate(model, IMAGES)
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    export_model(model, path, input_shape=IMAGES.shape[1:], batch=2)
    with torch.no_grad():
        return path, model(torch.from_numpy(IMAGES)).numpy()


def test_no_launch_of_its_own(network: tuple[Path, np.ndarray]) -> None:
    """Rolls of a network for GPUs are steps, each a launch that the next one waits for, or processors lose theirs."""
    packed = pack_network(open_model(network[0], None, lambda message: None).model, 2)

    def shifting(target: Target) -> int:
        lowered = lower_packed(packed, target)
        symbols = [launch.symbol for step in lowered.plan.steps for launch in step.launches]
        assert {str(function.attrs["global_symbol"]) for function in lowered.launched} == set(symbols)
        return sum("shift_words" in step.kernel for step in lowered.plan.steps)

    assert [shifting(target) for target in CUDA_TARGETS] == [0] * len(CUDA_TARGETS)
    # Three ShiftBlocks roll by one and by three.
    assert shifting(get_target("rpi4")) == 6


def test_network(network: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer takes the words of another tensor than the one that was rolled, or forgets its shifts with an epilogue."""
    # With __popc; the BCDNets of tests/test_zoo.py run on tensor cores.
    logits = logits_on_fake_gpu(network[0], IMAGES, "cuda-sm_53", tmp_path, monkeypatch)
    assert np.array_equal(logits.argmax(axis=1), network[1].argmax(axis=1))
    # As tests/test_zoo.py derives it for networks that are calibrated likewise, and deeper.
    assert np.abs(logits - network[1]).max() < 1e-3
