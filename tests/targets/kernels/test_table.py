"""The selection table, the names of kernels, and what specifications and packers refuse."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bnn_deploy.errors import CompileError
from bnn_deploy.targets.cuda import CUDA_TARGETS
from bnn_deploy.targets.kernels.specification import (
    ConvolutionSpecification,
    MultiSignPackSpecification,
    SignPackSpecification,
    TernaryPackSpecification,
)
from bnn_deploy.targets.kernels.table import TILES, select_kernel
from bnn_deploy.targets.registry import cpu_targets, get_target
from tests.targets.cases import edge_bank

GRAMMAR = re.compile(
    r"(binary|ternary)_conv2d(_tap)?_(u8|u32)x\d+_p\d+v\d+"
    r"|binary_conv2d_chain\d+x[24]_p\d+"
    r"|binary_conv2d_tree\d+x\d+_p\d+v\d+"
    r"|(binary|ternary)_depthwise_conv2d(_tap)?_u32x\d+"
    r"|(sign|ternary|ternary_sign)_pack(_many)?_(x86_64|arm64)"
)
# As the modules of targets/cuda/kernels say.
GPU_GRAMMAR = re.compile(
    r"(binary|ternary)_conv2d_mma_(xor|and)_\d+x\d+"
    r"|(binary|ternary)_conv2d_popc_\d+x\d+"
    r"|(binary|ternary)_grouped_conv2d(_tap)?_popc_\d+"
    r"|(sign|ternary|ternary_sign)_pack(_many)?_ballot"
)


def test_names_follow_the_grammar() -> None:
    """A name in a report or a benchmark cannot be traced to the table that documents it."""
    shapes = [shape for first_variant in range(3) for shape in edge_bank(first_variant).values()]
    for targets, grammar in ((cpu_targets(), GRAMMAR), (CUDA_TARGETS, GPU_GRAMMAR)):
        names = {select_kernel(shape, target).name for target in targets for shape in shapes}
        assert [name for name in names if not grammar.fullmatch(name)] == []


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("x86-64-v4-vpopcntdq", "binary_conv2d_u32x16_p7v2"),
        ("x86-64-v4", "binary_conv2d_tree8x16_p2v2"),
        ("x86-64-v3", "binary_conv2d_tree8x8_p1v2"),
        ("arm64", "binary_conv2d_chain5x4_p2"),
        ("rpi3", "binary_conv2d_chain1x4_p4"),
        ("rpi4", "binary_conv2d_chain1x4_p7"),
        ("jetson-xavier", "binary_conv2d_popc_32x32"),
        ("orin", "binary_conv2d_mma_xor_64x64"),
        ("h200", "binary_conv2d_mma_and_32x32"),
    ],
)
def test_selection(name: str, kernel: str) -> None:
    """A target gets a kernel for other vectors than its own."""
    layer = ConvolutionSpecification(1, 28, 28, 256, 256, (3, 3), (1, 1), (1, 1, 1, 1))
    assert select_kernel(layer, get_target(name)).name == kernel


@pytest.mark.parametrize(("zero", "values"), [(-1, ""), (0, "ternary_"), (1, "")])
def test_signs_of_three_values_have_a_name_of_their_own(zero: int, values: str) -> None:
    """Two kernels that make different words have one name in profiles."""
    sizes, target = (1, 4, 4, 32), get_target("arm64")
    assert select_kernel(SignPackSpecification(*sizes, zero=zero), target).name == f"{values}sign_pack_arm64"
    many = MultiSignPackSpecification(*sizes, 2, zero)
    assert select_kernel(many, target).name == f"{values}sign_pack_many_arm64"


def test_register_tiles_stay_on_the_stack() -> None:
    """A tile of 1 KiB or more becomes a heap allocation in the inner loop: TVM's limit for stack buffers."""
    assert [choice.tile for choice in TILES if 4 * choice.tile.pixels * choice.tile.block >= 1024] == []


def test_wrong_weights_are_refused() -> None:
    """Weights of another layer are packed silently."""
    kernel = select_kernel(ConvolutionSpecification(1, 4, 4, 32, 8, (3, 3)), get_target("arm64"))
    for weights in (np.zeros((8, 35), np.uint8), np.zeros((7, 36), np.uint8), np.zeros((8, 36), np.int8)):
        with pytest.raises(CompileError, match=r"Packed weights must be uint8 \(8, 36\), found"):
            kernel.pack_weights(weights)
    with pytest.raises(CompileError, match=r"must have shape \(8,\), found \(9,\)"):
        kernel.pack_scale(np.zeros(9, np.float32))


def test_kernels_without_weights_refuse_them() -> None:
    """A packing kernel given weights fails with a traceback instead of a sentence."""
    kernel = select_kernel(TernaryPackSpecification(1, 4, 4, 32), get_target("arm64"))
    with pytest.raises(CompileError, match="ternary_pack_arm64 has no weights"):
        kernel.pack_weights(np.zeros((8, 36), np.uint8))
    with pytest.raises(CompileError, match="ternary_pack_arm64 has no scale"):
        kernel.pack_scale(np.zeros(8, np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": 3}, "group 3 must divide"),
        ({"kernel_shape": (5, 1)}, "larger than the padded image"),
        ({"kernel_shape": (1, 0)}, "sizes >= 1"),
        ({"pads": (0, 0, -1, 0)}, "pads >= 0"),
        ({"in_channels": 2**24}, "2\\*\\*24 are exact"),
    ],
)
def test_impossible_convolutions_are_refused(options: dict[str, object], message: str) -> None:
    """A layer that no kernel can compute reaches code generation."""
    sizes = {"batch": 1, "height": 4, "width": 4, "in_channels": 32, "out_channels": 8}
    with pytest.raises(CompileError, match=message):
        ConvolutionSpecification(**{**sizes, **options})


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 1, 1, 31), (1, 4, 1, 1)])
def test_impossible_thresholds_are_refused(shape: tuple[int, int, int, int]) -> None:
    """A threshold that does not broadcast is read out of bounds."""
    with pytest.raises(CompileError, match="sign_pack takes a threshold of shape"):
        SignPackSpecification(3, 4, 4, 32, shape)
    with pytest.raises(CompileError, match="found zero=2"):
        SignPackSpecification(3, 4, 4, 32, zero=2)
