"""All kernels of a network as C functions, each once, however many functions and stages call it.

Before::

    main: fused_add(x: (1, 2, 56, 64), …)        stage_3: fused_add1(x: (1, 2, 56, 64), …)     # the same, under two names
After::

    main, stage_3: bnn_kernel_fused_add

Kernels are compared before they are scheduled, so that equal ones are scheduled and compiled once.
Where: after ``fuse_float``, when every operator is a call of a TIR function; it runs the passes on TIR.
Not handled: kernels that differ in their shapes only; each is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import tvm
import tvm_ffi
from tvm import tirx

from bnn_deploy.passes.tir.cuda_source import device_kernels
from bnn_deploy.passes.tir.raw_pointers import RawKernel, raw_pointers
from bnn_deploy.passes.tir.schedule_float import schedule_float
from bnn_deploy.passes.tir.schedule_gpu import schedule_gpu
from bnn_deploy.targets.base import Target


@dataclass(frozen=True)
class LoweredFunction:
    """A Relax function of kernel calls, and its kernels by the name of the called function."""

    module: tvm.IRModule
    kernels: Mapping[str, RawKernel]


@dataclass(frozen=True)
class LoweredFunctions:
    """All functions of a network for one kind of core.

    Attributes:
        functions: by the name of the stage, or "main".
        kernels: all kernels, by their C symbols.
        launched: for a GPU, what is launched for the kernels, in their order.
    """

    functions: dict[str, LoweredFunction]
    kernels: tvm.IRModule
    launched: tuple[tirx.PrimFunc, ...]

    def script(self) -> str:
        """The kernels of each function, for ``--dump-ir``."""
        return "\n\n".join(
            f"# {name} calls {kernel}\n{raw.function.script()}"
            for name, function in self.functions.items()
            for kernel, raw in function.kernels.items()
        )


def kernel_set(functions: Mapping[str, tvm.IRModule], target: Target, suffix: str = "") -> LoweredFunctions:
    """Run the pass; C symbols end in ``suffix``. See the module's docstring."""
    kernels = _Kernels(target, suffix)
    lowered = {name: LoweredFunction(module, kernels.of(module)) for name, module in functions.items()}
    return LoweredFunctions(lowered, tvm.IRModule(kernels.functions), tuple(kernels.launched))


class _Kernels:
    """The kernels so far."""

    def __init__(self, target: Target, suffix: str) -> None:
        self.target = target
        self.suffix = suffix
        self.launched: list[tirx.PrimFunc] = []
        self.alike: dict[int, list[tuple[tirx.PrimFunc, RawKernel]]] = {}
        self.functions: dict[str, tirx.PrimFunc] = {}
        self.counts: dict[str, int] = {}

    def of(self, module: tvm.IRModule) -> dict[str, RawKernel]:
        """The kernel of every TIR function of ``module``, by the function's name there."""
        found = {v.name_hint: f for v, f in module.functions_items() if isinstance(f, tirx.PrimFunc)}
        return {name: self._kernel(name, found[name]) for name in sorted(found)}

    def _kernel(self, name: str, function: tirx.PrimFunc) -> RawKernel:
        alike = self.alike.setdefault(tvm_ffi.structural_hash(function), [])
        for other, kernel in alike:
            if tvm_ffi.structural_equal(function, other):
                return kernel
        # Kernels of the table keep their names there; Relax numbers functions of one name without a mark between.
        symbol = self._symbol(str((function.attrs or {}).get("bnn.kernel", name)))
        if self.target.gpu is None:
            kernel = raw_pointers(schedule_float(function, self.target), symbol)
        else:
            kernel = raw_pointers(schedule_gpu(function), symbol)
            parts, launches = device_kernels(kernel.function)
            self.launched.extend(parts)
            kernel = replace(kernel, launches=launches)
        alike.append((function, kernel))
        self.functions[kernel.symbol] = kernel.function
        return kernel

    def _symbol(self, name: str) -> str:
        count = self.counts[name] = self.counts.get(name, 0) + 1
        return f"bnn_kernel_{name}{f'_{count}' * (count > 1)}{self.suffix}"
