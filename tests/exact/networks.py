"""Many operators in one network, compiled and run on this machine, and evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from bnn_deploy.exact.network import ExactNetwork
from bnn_deploy.passes.pipeline import lower_packed
from bnn_deploy.targets.registry import get_target
from tests.passes.execute import run_plan
from tests.passes.networks import build

# (emit as in ``tests.passes.networks.build``, the image) -> the result
Operator = Callable[[Callable[..., relax.Var], relax.Var], relax.Expr]


def side_by_side(shape: tuple[int, ...], operators: list[Operator]) -> tvm.IRModule:
    """A network that applies each operator to its input, an image NHWC, and lays the results one after another."""

    def body(emit: Callable[..., relax.Var], x: relax.Var) -> relax.Expr:
        results = []
        for number, operator in enumerate(operators):
            y = emit(operator(emit, x), f"operator_{number}")
            results.append(emit(relax.op.reshape(y, (-1,)), f"operator_{number}"))
        return relax.op.concat(results, axis=0) if len(results) > 1 else results[0]

    return build([shape], body)


def assert_same_bits(module: tvm.IRModule, x: np.ndarray, folder: Path) -> None:
    """The compiled network gives the same bits as its evaluation; any NaN is like any other."""
    target = get_target("host")
    compiled = run_plan(lower_packed(module, target), target, x, folder)
    network = ExactNetwork(module)
    exact = list(network._evaluate(x, {}, {}))[-1]
    assert isinstance(exact, np.ndarray) and exact.shape == compiled.shape
    same = (exact.view(np.uint32) == compiled.view(np.uint32)) | (np.isnan(exact) & np.isnan(compiled))
    if not same.all():
        first = int(np.flatnonzero(~same.ravel())[0])
        raise AssertionError(
            f"{int((~same).sum())} of {same.size} differ, the first at {first}: evaluated {exact.ravel()[first]!r}, compiled "
            f"{compiled.ravel()[first]!r}"
        )
