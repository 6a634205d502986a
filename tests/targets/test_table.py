"""The selection table, the names of kernels, and what specifications and packers refuse."""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import tirx

from bnn_deploy.errors import CompileError
from bnn_deploy.targets.cuda import CUDA_TARGETS
from bnn_deploy.targets.kernels.pack_specification import (
    MultiSignPackSpecification,
    SignPackSpecification,
    TernaryPackSpecification,
)
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification, ShiftWordsSpecification
from bnn_deploy.targets.registry import cpu_targets, get_target
from bnn_deploy.targets.table import GPU_KERNELS, PROCESSOR_KERNELS, select_kernel
from tests.targets.cases import LAYERS, edge_bank

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


BIG = ConvolutionSpecification(1, 28, 28, 256, 256, (3, 3), (1, 1), (1, 1, 1, 1))


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
    assert select_kernel(BIG, get_target(name)).name == kernel


@pytest.mark.parametrize(("zero", "values"), [(-1, ""), (0, "ternary_"), (1, "")])
def test_signs_of_three_values_have_a_name_of_their_own(zero: int, values: str) -> None:
    """Two kernels that make different words have one name in profiles."""
    sizes, target = (1, 4, 4, 32), get_target("arm64")
    assert select_kernel(SignPackSpecification(*sizes, zero=zero), target).name == f"{values}sign_pack_arm64"
    many = MultiSignPackSpecification(*sizes, 2, zero)
    assert select_kernel(many, target).name == f"{values}sign_pack_many_arm64"


def test_register_tiles_stay_on_the_stack() -> None:
    """A buffer of 1 KiB or more becomes a heap allocation in the inner loop: TVM's limit for stack buffers."""
    found: list[tuple[int, str]] = []

    def look(node: tirx.AllocBuffer) -> None:
        size = tvm.runtime.DataType(str(node.buffer.dtype)).itemsize * prod(map(int, node.buffer.shape))
        found.append((size, node.buffer.name))

    layers = [BIG, replace(BIG, ternary=True), replace(BIG, tap_scaled=True), LAYERS["words on the stack"]]
    for target in cpu_targets():
        for _, variant in target.variants:
            for layer in (*layers, LAYERS["longest chain of half vectors"], LAYERS["depthwise pairs, column"]):
                body = select_kernel(layer, variant).build().body
                tvm_ffi.structural_walk(body, (tirx.AllocBuffer, look))
    assert found and max(found)[0] < 1024, max(found)


def test_every_line_is_tested() -> None:
    """A line of the table computes something that no case of the banks is run with, or nothing at all."""
    work = [*edge_bank(0).values(), *edge_bank(1).values(), ShiftWordsSpecification(1, 4, 4, 4, ((0, 4, 1, 0),)), BIG]
    chosen = set()
    # The last line is for processors that are no target yet; test_kernels.py has a case for it.
    variants = [(PROCESSOR_KERNELS, variant) for target in cpu_targets() for _, variant in target.variants]
    portable = replace(get_target("x86-64-v3"), architecture="another")
    gpus = [(GPU_KERNELS, target.gpu) for target in CUDA_TARGETS]
    for table, machine in (*variants, (PROCESSOR_KERNELS, portable), *gpus):
        for specification in work:
            lines = (line for line in table if isinstance(specification, line.work) and line.machines(machine))
            chosen.add(next(line.reason for line in lines if line.kernel(specification, machine) is not None))
    assert [line.reason for line in (*PROCESSOR_KERNELS, *GPU_KERNELS) if line.reason not in chosen] == []


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
