"""Compiles many kernel calls into one static C program, so that one (emulated) process runs them all.

The program reads one block of memory from its standard input, calls every kernel on addresses within it and writes the block
back. Python compares the outputs, and everything around them, which no kernel may touch.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tvm
from tvm import tirx

from bnn_deploy.passes.tir.raw_pointers import raw_pointers
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.kernel import Kernel
from tests.targets.cases import Case

ALIGNMENT = 64
# Bytes between buffers; a kernel that writes beyond its output changes them.
GUARD = 256
UNTOUCHED = 0xA5

MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {{ void *sync; int32_t num_task; }} environment_t;
typedef int (*body_t)(int, environment_t *, void *);

static int parts;

static int launch(body_t body, void *closure, int wanted) {{
    environment_t environment = {{0, wanted ? wanted : parts}};
    for (int index = environment.num_task - 1; index >= 0; --index) {{
        int status = body(index, &environment, closure);
        if (status) return status;
    }}
    return 0;
}}

int (*__TVMBackendParallelLaunch)(body_t, void *, int) = launch;

{declarations}
static _Alignas({alignment}) unsigned char memory[{bytes}];

int main(int count, char **arguments) {{
    parts = count > 1 ? atoi(arguments[1]) : 1;
    if (fread(memory, 1, sizeof memory, stdin) != sizeof memory) return 100;
{calls}
    return fwrite(memory, 1, sizeof memory, stdout) == sizeof memory ? 0 : 101;
}}
"""


def c_function(kernel: Kernel, prepare: Callable[[tirx.PrimFunc], tirx.PrimFunc], symbol: str) -> tirx.PrimFunc:
    """The kernel as ``int32_t symbol(void *, …[, int32_t block])``."""
    function = prepare(kernel.build()).with_attr("bnn.kernel", kernel.name)
    return raw_pointers(function, symbol).function


class Program:
    """Kernel calls as one executable of a target's architecture."""

    def __init__(
        self,
        cases: Sequence[Case],
        target: Target,
        folder: Path,
        prepare: Callable[[tirx.PrimFunc], tirx.PrimFunc] = lambda function: function,
        sources: Sequence[Path] = (),
    ) -> None:
        """``prepare`` is run on every kernel; ``sources`` are C files that define what the kernels call."""
        self.cases, self.path = cases, folder / "program"
        self.offsets: list[list[int]] = []
        used = GUARD
        for case in cases:
            offsets = []
            for array in (*case.inputs, case.expected):
                offsets.append(used)
                used += -(-array.nbytes // ALIGNMENT) * ALIGNMENT + GUARD
            self.offsets.append(offsets)
        self.bytes = used
        # Calls for the blocks of one layer share its kernel.
        kernels = list(dict.fromkeys(case.kernel for case in cases))
        self.functions = [kernels.index(case.kernel) for case in cases]
        module = tvm.IRModule({f"k{i}": c_function(kernel, prepare, f"k{i}") for i, kernel in enumerate(kernels)})
        tvm.tirx.build(module, tvm.target.Target(target.llvm)).write_to_file(str(folder / "kernels.o"), "o")
        (folder / "main.c").write_text(self._source(), encoding="utf-8")
        triple = {"x86_64": "x86_64-linux-musl", "arm64": "aarch64-linux-musl"}[target.architecture]
        # With -s, as bundles are linked: zig would build another musl without it.
        command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, "-static", "-s", "-O1"]
        subprocess.run([*command, "main.c", "kernels.o", *sources, "-o", "program"], cwd=folder, check=True)

    def _source(self) -> str:
        declarations, calls = [], []
        for index, offsets in enumerate(self.offsets):
            block = self.cases[index].block
            types = ["void *"] * len(offsets) + ["int32_t"] * (block is not None)
            values = [f"memory + {offset}" for offset in offsets] + [str(block)] * (block is not None)
            declarations.append(f"int32_t k{self.functions[index]}({', '.join(types)});\n")
            calls.append(f"    if (k{self.functions[index]}({', '.join(values)})) return {index % 99 + 1};\n")
        return MAIN.format(
            declarations="".join(declarations), calls="".join(calls), alignment=ALIGNMENT, bytes=self.bytes
        )

    def run(self, emulator: Sequence[str] = (), parts: int = 1) -> np.ndarray:
        """The memory after all calls; each T.parallel loop is cut into ``parts`` and run from the last to the first."""
        memory = np.full(self.bytes, UNTOUCHED, np.uint8)
        for case, offsets in zip(self.cases, self.offsets, strict=True):
            for array, offset in zip(case.inputs, offsets, strict=False):
                memory[offset : offset + array.nbytes] = array.reshape(-1).view(np.uint8)
        self.before = memory
        result = subprocess.run(
            [*emulator, str(self.path), str(parts)], input=memory.tobytes(), stdout=subprocess.PIPE, check=True
        )
        return np.frombuffer(result.stdout, np.uint8)

    def mismatches(self, memory: np.ndarray) -> list[str]:
        """What differs from the expected outputs, and whether anything else was written."""
        found, wanted = [], self.before.copy()
        for case, offsets in zip(self.cases, self.offsets, strict=True):
            expected = case.expected.reshape(-1).view(np.uint8)
            region = slice(offsets[-1], offsets[-1] + expected.size)
            wrong = int((memory[region].view(np.uint32) != expected.view(np.uint32)).sum())
            if wrong:
                found.append(f"{case.name} ({case.kernel.name}): {wrong} of {case.expected.size} elements differ")
            wanted[region] = memory[region]
        if not np.array_equal(memory, wanted):
            found.append(f"written outside of the outputs, first at byte {int(np.argmax(memory != wanted))}")
        return found
