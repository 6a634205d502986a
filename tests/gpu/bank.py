"""All kernel banks as calls for a GPU: kernels with inputs and the outputs that they must produce, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import tvm
from tvm import tirx

from bnn_deploy.passes.tir.cuda_source import cuda_source, device_kernels
from bnn_deploy.passes.tir.raw_pointers import raw_pointers
from bnn_deploy.passes.tir.serial_threads import serial_threads
from bnn_deploy.plan import Launch
from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda.architectures import ARCHITECTURES, architecture
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.pack_specification import MultiSignPackSpecification, MultiTernaryPackSpecification
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification, ShiftWordsSpecification, Specification
from bnn_deploy.targets.registry import get_target
from bnn_deploy.targets.table import select_gpu_kernel
from tests.cuda.driver import build_kernels
from tests.cuda.serial import SERIAL_FUNCTIONS, optimised
from tests.targets.cases import PACKS, convolution_arrays, edge_bank, pack_arrays
from tests.targets.kernels.packing.test_bitpack import many_case

# Layers of the networks, cut to a few pixels: the tiles that real layers get, with all their channels.
NETWORK_LAYERS = {
    "BCDNet-A, 3x3 on 128": ConvolutionSpecification(2, 28, 28, 128, 128, kernel_shape=(3, 3), pads=(1, 1, 1, 1)),
    "BCDNet-A, 1x1 on 1024": ConvolutionSpecification(1, 7, 7, 1024, 1024),
    "BCDNet-A, batch 64": ConvolutionSpecification(64, 14, 14, 512, 512),
    "BiMLP-M, linear": ConvolutionSpecification(1, 28, 28, 128, 512),
    "whole tiles": ConvolutionSpecification(1024, 1, 1, 1024, 1024),
}
# Words that a warp makes several of, tails, and grids whose last warps have no work.
PACK_SIZES = ((1, 48, 48, 32), (2, 31, 37, 33), (1, 7, 151, 64), (3, 29, 31, 1), (64, 14, 14, 512))
SHIFTS = {
    f"shift of {unit} words": ShiftWordsSpecification(
        2, 14, 13, 8 * unit, ((0, 2 * unit, 1, 0), (2 * unit, 3 * unit, -1, 0), (5 * unit, 3 * unit, 0, -20))
    )
    for unit in (1, 2, 4)
}


@dataclass(frozen=True)
class Call:
    """One kernel call: arrays in, arrays that must come out, equal in every process; its C symbol is ``symbol``."""

    name: str
    symbol: str
    kernel: Kernel
    specification: Specification
    seed: int

    @cached_property
    def function(self) -> tirx.PrimFunc:
        """The kernel as pipelines hand it on."""
        return raw_pointers(self.kernel.build().with_attr("bnn.kernel", self.kernel.name), self.symbol).function

    @cached_property
    def _made(self) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        inputs, outputs = _arrays(self.specification, self.kernel, self.seed)
        return tuple(np.ascontiguousarray(array) for array in inputs), tuple(outputs)

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        """Contiguous."""
        return self._made[0]

    @property
    def outputs(self) -> tuple[np.ndarray, ...]:
        """What must come out."""
        return self._made[1]


def specifications(group: str) -> dict[str, Specification]:
    """A bank by its name: "packing", packing of several "branches", "edges" of convolutions, or "layers" of networks."""
    if group == "edges":
        return {name: one for name, one in (edge_bank(0) | edge_bank(1)).items() if name not in PACKS}
    if group == "layers":
        wide = dict(NETWORK_LAYERS)
        wide |= {f"{name}, ternary": replace(one, ternary=True) for name, one in NETWORK_LAYERS.items()}
        return wide
    if group == "packing":
        return dict(PACKS) | SHIFTS
    found: dict[str, Specification] = {}
    for size in PACK_SIZES:
        for zero in (-1, 0, 1):
            found[f"signs of {size}, zero {zero}"] = MultiSignPackSpecification(*size, 3, zero)
        found[f"ternary of {size}"] = MultiTernaryPackSpecification(*size, 2)
    return found


def kernels_for(sm: int) -> list[int]:
    """SMs whose kernels a GPU of ``sm`` runs: its own, the popcount kernels, and other products that it can make, if slowly."""
    own = architecture(sm).dot_product
    able = {"popc", own} | ({"xor_16x8x256"} if sm >= 80 else set())
    oldest = {row.dot_product: row.sm for row in reversed(ARCHITECTURES)}
    return sorted({sm if product == own else oldest[product] for product in able})


def calls(group: str, kernel_sm: int) -> list[Call]:
    """The calls of a bank with the kernels that are selected for ``kernel_sm``."""
    found = []
    for index, (name, specification) in enumerate(specifications(group).items()):
        kernel = select_gpu_kernel(specification, Gpu(kernel_sm))
        found.append(Call(f"{name} ({kernel.name})", f"{group}_{kernel_sm}_{index}", kernel, specification, index))
    return found


def _arrays(specification: Specification, kernel: Kernel, seed: int) -> tuple[tuple[np.ndarray, ...], list[np.ndarray]]:
    random = np.random.default_rng(seed)
    if isinstance(specification, ConvolutionSpecification):
        inputs, expected = convolution_arrays(specification, kernel, random, all_products_minus_one=False)
        return inputs, [expected]
    if isinstance(specification, ShiftWordsSpecification):
        x = random.integers(0, 2**32, specification.input_shape, np.uint32)
        runs = [np.roll(x[..., f : f + n], (-rows, -columns), (1, 2)) for f, n, rows, columns in specification.segments]
        return (x,), [np.concatenate(runs, axis=3)]
    if isinstance(specification, MultiSignPackSpecification | MultiTernaryPackSpecification):
        _, inputs, planes = many_case(specification, get_target("x86-64-v3"), seed)
        return inputs, planes
    inputs, expected = pack_arrays(specification, random)
    return inputs, [expected]


def device_source(some: Sequence[Call], sm: int) -> tuple[str, dict[str, tuple[Launch, ...]]]:
    """CUDA C of the calls' kernels, and the launches of each by its symbol."""
    kernels, launches = [], {}
    for call in some:
        parts, launches[call.symbol] = device_kernels(call.function)
        kernels += parts
    return cuda_source(kernels, sm), launches


def serial_kernels(some: Sequence[Call], folder: Path) -> Path:
    """The library for the fake driver: the same kernels with threads as loops."""
    functions = {call.symbol: serial_threads(call.function) for call in some}
    counts = [f"API int32_t {call.symbol}_parameters = {len(call.function.params)};" for call in some]
    source, objects = folder / "parameters.c", folder / "kernels.o"
    header = ["#include <stdint.h>", '#define API __attribute__((visibility("default")))']
    source.write_text("\n".join([*header, *counts]) + "\n", encoding="utf-8")
    portable = tvm.target.Target(optimised(get_target("x86-64-v3"), 1).llvm)
    tvm.tirx.build(tvm.IRModule(functions), portable).write_to_file(str(objects), "o")
    return build_kernels(folder, [source, SERIAL_FUNCTIONS, objects])
