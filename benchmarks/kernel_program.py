"""Kernels as machine code that C calls: a library for this process, or a static program for an emulator."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from math import prod
from pathlib import Path

import tvm
from tvm import tirx

from bnn_deploy.passes.tir.raw_pointers import raw_pointers
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification

SOURCES = Path(__file__).parent
TRIPLES = {
    ("x86_64", "library"): "x86_64-linux-gnu.2.17",
    ("x86_64", "program"): "x86_64-linux-musl",
    ("arm64", "library"): "aarch64-linux-gnu.2.17",
    ("arm64", "program"): "aarch64-linux-musl",
}


def build(kernels: Sequence[Kernel], target: Target, folder: Path, form: str) -> Path:
    """Machine code of ``kernels``, by index, in a ``"library"`` or a ``"program"`` (see ``kernel_calls.c``).

    ``folder`` is for one build: the dynamic loader takes a second library at the same path for the first.
    """
    functions = [kernel.build() for kernel in kernels]
    pairs = list(zip(kernels, functions, strict=True))
    module = tvm.IRModule({f"kernel_{i}": _c_function(*pair, i) for i, pair in enumerate(pairs)})
    tvm.tirx.build(module, tvm.target.Target(target.llvm)).write_to_file(str(folder / "kernels.o"), "o")
    entries = [_entry(index, kernel, function) for index, (kernel, function) in enumerate(pairs)]
    table = "\n".join(code for code, _ in entries) + "\nstatic const kernel_t kernels[] = {\n"
    (folder / "kernel_table.h").write_text(table + "\n".join(row for _, row in entries) + "\n};\n", encoding="utf-8")
    output = folder / form
    options = ("-shared", "-fPIC") if form == "library" else ("-static",)
    zig(target, form, [SOURCES / "kernel_calls.c", folder / "kernels.o", f"-I{folder}", *options, "-lm"], output)
    return output


def zig(target: Target, form: str, arguments: Sequence[str | Path], output: Path) -> None:
    """Compile and link C for the architecture of ``target``."""
    command = [sys.executable, "-m", "ziglang", "cc", "-target", TRIPLES[target.architecture, form], "-O2"]
    subprocess.run([*command, *map(str, arguments), "-o", str(output)], check=True)


def _c_function(kernel: Kernel, function: tirx.PrimFunc, index: int) -> tirx.PrimFunc:
    """The kernel as ``int32_t kernel_<index>(void *, …[, int32_t block])``."""
    return raw_pointers(function.with_attr("bnn.kernel", kernel.name), f"kernel_{index}").function


def _entry(index: int, kernel: Kernel, function: tirx.PrimFunc) -> tuple[str, str]:
    """C: a function that calls one kernel, and its row of the table."""
    buffers = [parameter for parameter in function.params if _is_buffer(parameter)]
    blocked = len(buffers) < len(function.params)
    types = ", ".join(["void *"] * len(buffers) + ["int32_t"] * blocked)
    arguments = ", ".join([*(f"pointers[{i}]" for i in range(len(buffers))), *(["block"] * blocked)])
    code = f"int32_t kernel_{index}({types});\nstatic int32_t call_{index}(void **pointers, int32_t block) {{\n"
    code += f"    (void)block;\n    return kernel_{index}({arguments});\n}}"
    sizes = ", ".join(f"{{{_bytes(buffer)}, {int(str(buffer.dtype) == 'float32')}}}" for buffer in buffers)
    return code, f"    {{call_{index}, {_blocks(kernel)}, {len(buffers)}, {{{sizes}}}}},"


def _is_buffer(parameter: tvm.ir.Expr) -> bool:
    return not isinstance(parameter.ty, tvm.ir.PrimType)


def _blocks(kernel: Kernel) -> int:
    layer = kernel.specification
    if not isinstance(layer, ConvolutionSpecification) or not layer.block_rows:
        return 1
    batch, rows, *_ = layer.image_output_shape
    return batch * rows // layer.block_rows


def _bytes(buffer: tirx.Buffer) -> int:
    return prod(int(extent) for extent in buffer.shape) * tvm.runtime.DataType(str(buffer.dtype)).itemsize
