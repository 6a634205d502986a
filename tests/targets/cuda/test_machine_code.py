"""The machine code of binary layers on every architecture: the instruction meant for it and no emulation."""

from __future__ import annotations

import pytest

from bnn_deploy.codegen.cuda_compiler import compile_cuda
from bnn_deploy.passes.tir.cuda_source import cuda_source, device_kernels
from bnn_deploy.passes.tir.raw_pointers import raw_pointers
from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda.architectures import ARCHITECTURES, Architecture
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.table import select_gpu_kernel
from tests.cuda.disassembly import assemble, assert_native, kernel_code

# A layer whose sizes suit an mma, and one that leaves parts of everything: words, tiles of channels and of pixels, padding.
LAYERS = {
    "suiting": ConvolutionSpecification(1, 14, 14, 256, 256, (1, 1)),
    "ragged": ConvolutionSpecification(2, 7, 7, 70, 33, (3, 3), (2, 2), (1, 1, 1, 1)),
}


@pytest.mark.parametrize("row", ARCHITECTURES, ids=lambda row: row.name)
def test_binary_layers(row: Architecture) -> None:
    """Breaks if a layer is made of slower instructions than its GPU has, of a function that emulates them, or of newer ones than
    its PTX says, which older drivers would refuse."""
    kernels = []
    for name, layer in LAYERS.items():
        function = raw_pointers(select_gpu_kernel(layer, Gpu(row.sm)).build(), name).function
        kernels += device_kernels(function)[0]
    code = compile_cuda(cuda_source(kernels, row.sm), row.sm)
    assembled = kernel_code(assemble(code.ptx, row.sm))
    for found in (kernel_code(code.cubin), assembled):
        assert set(found) == set(LAYERS)
        for kernel in found.values():
            assert_native(kernel, row.dot_product)
