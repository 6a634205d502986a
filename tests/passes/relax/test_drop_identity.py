"""drop_identity: movement that moves nothing disappears, everything else stays."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax

from bnn_deploy.passes.relax.drop_identity import drop_identity
from tests.passes.networks import build, take

SHAPE = (1, 4, 6, 6)
EVERYTHING = 2**63 - 1


@pytest.mark.parametrize(
    "identity",
    [
        lambda x: take(x, 0, 0, EVERYTHING),
        lambda x: take(x, 1, 0, 4),
        lambda x: take(x, 2, -6, EVERYTHING),
        lambda x: relax.op.reshape(x, SHAPE),
        lambda x: relax.op.broadcast_to(x, SHAPE),
        lambda x: relax.op.concat([x], axis=1),
    ],
    ids=["slice of batch", "slice with exact end", "slice with negative begin", "reshape", "broadcast_to", "concat"],
)
def test_identities_disappear(identity: object) -> None:
    """Breaks: torch.export's slices of everything reach the kernels as copies."""
    before = build([SHAPE], lambda emit, x: relax.op.abs(take(identity(x), 1, 0, 4, 2)))
    expected = build([SHAPE], lambda emit, x: relax.op.abs(take(x, 1, 0, 4, 2)))
    tvm.ir.assert_structural_equal(drop_identity(before), expected)


@pytest.mark.parametrize(
    "movement",
    [
        lambda x: take(x, 3, EVERYTHING, -EVERYTHING, -1),
        lambda x: take(x, 3, 1, EVERYTHING),
        lambda x: relax.op.reshape(x, (1, 6, 4, 6)),
        lambda x: relax.op.permute_dims(x, [0, 1, 3, 2]),
        lambda x: relax.op.concat([x, x], axis=0),
    ],
    ids=["reversal", "slice", "reshape", "transpose of a square", "concat of two"],
)
def test_movement_stays(movement: object) -> None:
    """Breaks: an operator that keeps the shape but moves elements is lost, and the network computes something else."""
    before = build([SHAPE], lambda emit, x: relax.op.abs(movement(x)))
    tvm.ir.assert_structural_equal(drop_identity(before), before)


def test_chains_of_identities_disappear_together() -> None:
    """Breaks: only every other identity of ``x[:, :, ::2]`` is removed."""

    def chain(emit: object, x: relax.Var) -> relax.Expr:
        return take(take(take(x, 0, 0, EVERYTHING), 1, 0, EVERYTHING), 2, 0, EVERYTHING, 2)

    expected = build([SHAPE], lambda emit, x: take(x, 2, 0, EVERYTHING, 2))
    tvm.ir.assert_structural_equal(drop_identity(build([SHAPE], chain)), expected)
