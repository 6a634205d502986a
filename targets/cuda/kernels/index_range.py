"""How many elements a kernel's indices reach."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from bnn_deploy.errors import CompileError

# Indices are int32, and threads beyond the last element still compute theirs: room for one more row of the largest block.
MAXIMUM_ELEMENTS = 2**31 - 2**20


def require_int32_indices(what: str, *shapes: Sequence[int]) -> None:
    """Refuse tensors that have more elements than an index can count.

    Raises:
        CompileError: says which shape, and what to do.
    """
    for shape in shapes:
        if prod(shape) > MAXIMUM_ELEMENTS:
            raise CompileError(
                f"{what} has a tensor of shape {tuple(shape)}, {prod(shape)} elements, where kernels for GPUs reach "
                f"{MAXIMUM_ELEMENTS}; compile for a smaller batch."
            )
