"""Runs GPU kernels on the CPU, their threads as loops (see ``passes.tir.serial_threads``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from bnn_deploy.passes.tir.serial_threads import serial_threads
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.cuda import device_functions
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.registry import get_target
from tests.targets.cases import Case, convolution_arrays, pack_arrays
from tests.targets.program import Program

SERIAL_FUNCTIONS = Path(device_functions.__file__).with_name("serial_functions.c")


def kernel_case(name: str, kernel: Kernel, seed: int, all_products_minus_one: bool = False) -> Case:
    """A call of a kernel without epilogue on random inputs that include the special values, and what it must give."""
    random = np.random.default_rng(seed)
    if isinstance(kernel.specification, ConvolutionSpecification):
        inputs, expected = convolution_arrays(kernel.specification, kernel, random, all_products_minus_one)
    else:
        inputs, expected = pack_arrays(kernel.specification, random)
    return Case(name, kernel, tuple(np.ascontiguousarray(array) for array in inputs), expected)


@dataclass(frozen=True)
class Optimised(Target):
    """A target whose level of optimisation is known: LLVM is most of the time of these tests."""

    level: int = 0

    @property
    def llvm(self) -> dict[str, object]:
        """As for the base, at this level."""
        return {**super().llvm, "opt-level": self.level}


def optimised(target: Target, level: int) -> Optimised:
    """The target at a level from 0, for what runs for a moment, to 3, which is the default; 1 for whole networks."""
    return Optimised(**{field.name: getattr(target, field.name) for field in fields(target)}, level=level)


def serial_programs(cases: Sequence[Case], folder: Path) -> Iterator[tuple[str, Program]]:
    """All cases with threads in ascending, then in descending order, and the order's name."""
    for order in ("ascending", "descending"):
        place = folder / order
        place.mkdir()
        prepare = partial(serial_threads, descending=order == "descending")
        # Any x86-64 processor will do: the portable level keeps the tests the same everywhere.
        yield order, Program(cases, optimised(get_target("x86-64-v3"), 0), place, prepare, [SERIAL_FUNCTIONS])


def serial_mismatches(cases: Sequence[Case], folder: Path) -> list[str]:
    """Runs all cases with threads in ascending and in descending order; what differs from the expected outputs."""
    return [
        f"threads in {order} order: {line}"
        for order, program in serial_programs(cases, folder)
        for line in program.mismatches(program.run())
    ]
