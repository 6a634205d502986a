"""One operator of packed Relax as plain Python: what the rules of this package read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Operation:
    """What an operator's rule must know beside its arrays.

    Attributes:
        name: ``relax.add``, ``bnn.packed_conv2d``, …
        attributes: the operator's own, as numbers, strings, None, and tuples of them.
        shape: of the result; () for several results.
        dtype: of the result, as numpy calls it; "" for several results.
    """

    name: str
    attributes: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: str

    def integer(self, name: str) -> int:
        """An attribute that is one whole number, or a truth value."""
        return int(self.attributes[name])

    def number(self, name: str) -> np.float32:
        """An attribute that is one real number, as the network holds it."""
        number: np.float32 = np.float32(self.attributes[name])
        return number

    def integers(self, name: str) -> tuple[int, ...]:
        """An attribute that is a tuple of whole numbers."""
        return tuple(int(number) for number in self.attributes[name])

    def axis(self, rank: int, name: str = "axis") -> int:
        """An attribute that is one axis, counted from the first."""
        return self.integer(name) % rank

    def axes(self, rank: int, name: str = "axis") -> tuple[int, ...]:
        """An attribute that is some axes, in order; None stands for all."""
        if self.attributes[name] is None:
            return tuple(range(rank))
        return tuple(sorted({axis % rank for axis in self.integers(name)}))


class NoRuleError(Exception):
    """A rule does not know this form of its operator; says which."""
