"""The kernels of a network's GPU bundle as a library of C functions, which the fake driver runs: the same TIR, threads as loops."""

from __future__ import annotations

from pathlib import Path

import tvm

from bnn_deploy.passes.pipeline import Lowered
from bnn_deploy.passes.tir.serial_threads import serial_threads
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.registry import get_target
from tests.cuda.driver import build_kernels
from tests.cuda.serial import SERIAL_FUNCTIONS, optimised

# Any processor of the architecture will do.
PORTABLE = {"x86_64": "x86-64-v3", "arm64": "arm64"}


def serial_library(lowered: Lowered, target: Target, folder: Path) -> Path:
    """The library of all kernels, for the processor beside the target's GPU.

    A kernel of several launches runs as a whole at the first of them, since each depends on the one before only.
    """
    (module,) = lowered.kernels
    lines = ["#include <stdint.h>", '#define API __attribute__((visibility("default")))']
    functions = {}
    launches = {step.kernel: (step.launches, len(step.arguments)) for step in lowered.plan.steps}
    for symbol, (parts, parameters) in launches.items():
        first, *others = (launch.symbol for launch in parts)
        functions[first] = serial_threads(module[symbol]).with_attr("global_symbol", first)
        lines += [f"API int32_t {name}(void) {{ return 0; }}" for name in others]
        lines += [f"API int32_t {name}_parameters = {parameters if name == first else 0};" for name in (first, *others)]
    processor = optimised(get_target(PORTABLE[target.architecture]), 1)
    objects, source = folder / "kernels.o", folder / "launches.c"
    tvm.tirx.build(tvm.IRModule(functions), tvm.target.Target(processor.llvm)).write_to_file(str(objects), "o")
    source.write_text("\n".join(lines) + "\n")
    return build_kernels(folder, [source, SERIAL_FUNCTIONS, objects], target.architecture)
