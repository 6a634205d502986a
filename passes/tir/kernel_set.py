"""All kernels of a network as C functions, each once, however many functions and stages call it.

Before::

    main: fused_add(x: (1, 2, 56, 64), …)        stage_3: fused_add1(x: (1, 2, 56, 64), …)     # the same, under two names
After::

    main, stage_3: bnn_kernel_fused_add

Kernels are compared before they are scheduled, so that equal ones are scheduled and compiled once.
Where: after ``fuse_float``, when every operator is a call of a TIR function; it runs the passes on TIR.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import tvm
import tvm_ffi
from tvm import tirx

from bnn_deploy.passes.tir.cuda_source import device_kernels
from bnn_deploy.passes.tir.raw_pointers import RawKernel, raw_pointers


class KernelSet:
    """The kernels so far; ``schedule`` is run on each. Their C symbols end in ``suffix``.

    With ``on_gpu``, ``launched`` is what is launched there for them.
    """

    def __init__(
        self, schedule: Callable[[tirx.PrimFunc], tirx.PrimFunc], suffix: str = "", on_gpu: bool = False
    ) -> None:
        self.schedule = schedule
        self.suffix = suffix
        self.on_gpu = on_gpu
        self.launched: list[tirx.PrimFunc] = []
        self.alike: dict[int, list[tuple[tirx.PrimFunc, RawKernel]]] = {}
        self.functions: dict[str, tirx.PrimFunc] = {}
        self.counts: dict[str, int] = {}

    def of(self, module: tvm.IRModule) -> dict[str, RawKernel]:
        """The kernel of every TIR function of ``module``, by the function's name there."""
        found = {v.name_hint: f for v, f in module.functions_items() if isinstance(f, tirx.PrimFunc)}
        return {name: self._kernel(name, found[name]) for name in sorted(found)}

    def module(self) -> tvm.IRModule:
        """All kernels, by their C symbols."""
        return tvm.IRModule(self.functions)

    def _kernel(self, name: str, function: tirx.PrimFunc) -> RawKernel:
        alike = self.alike.setdefault(tvm_ffi.structural_hash(function), [])
        for other, kernel in alike:
            if tvm_ffi.structural_equal(function, other):
                return kernel
        # Kernels of the table keep their names there; Relax numbers functions of one name without a mark between.
        own = (function.attrs or {}).get("bnn.kernel", name)
        kernel = raw_pointers(self.schedule(function), self._symbol(str(own)))
        if self.on_gpu:
            parts, launches = device_kernels(kernel.function)
            self.launched.extend(parts)
            kernel = replace(kernel, launches=launches)
        alike.append((function, kernel))
        self.functions[kernel.symbol] = kernel.function
        return kernel

    def _symbol(self, name: str) -> str:
        count = self.counts[name] = self.counts.get(name, 0) + 1
        return f"bnn_kernel_{name}{f'_{count}' * (count > 1)}{self.suffix}"
