"""Carry-save chains: how a run of vectors is xor-ed, added bit by bit and counted with fewer popcounts.

Let ``v[i] = x[i] ^ w[i]`` be the differing bits of step ``i``. A full adder turns three vectors into a sum and a carry,
so that two popcounts serve three vectors. Chained, the sum of one adder is an input of the next: adder ``j`` takes
``s[j-1]``, ``v[2j-1]`` and ``v[2j]``. What makes it pay on NEON, where popcounts are cheap, is that xor distributes:
with the running xors ``X[i] = x[0] ^ … ^ x[i]`` and ``W[i]`` alike, ``t[j] = X[2j-1] ^ W[2j-1]`` and
``s[j] = X[2j] ^ W[2j]`` cost one xor each, the X side is shared by all output channels and the W side is packed. The
carry is ``t[j] ? v[2j] : s[j-1]``, and where ``t[j]`` is set ``v[2j]`` is ``~s[j]``. W is stored inverted for odd
``j``, so that one bit select makes the carry of odd ``j`` and the inverted carry of even ``j``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Chain:
    """A chain over ``length`` vectors.

    Attributes:
        length: vectors; an even one leaves the last vector to be counted by itself.
    """

    length: int

    @property
    def adders(self) -> int:
        """Full adders."""
        return (self.length - 1) // 2

    @property
    def has_rest(self) -> bool:
        """Whether the last vector is counted by itself, and stored as it is."""
        return self.length % 2 == 0

    @property
    def chained(self) -> int:
        """Vectors whose running xor is stored."""
        return 2 * self.adders + 1

    def inverted(self, index: int) -> bool:
        """Whether the running xor of the weights up to ``index`` is stored inverted."""
        return index % 4 == 2 and index < self.chained

    def surplus(self, bits: int) -> int:
        """What ``2 * carries + rest`` as counted lacks of the number of differing bits, ``bits`` being one vector's."""
        even = self.adders // 2
        return bits * (2 * even + self.adders % 2)

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """uint32 (…, length, words) as stored: running xors, some of them inverted."""
        stored: np.ndarray = weights.copy()
        stored[..., : self.chained, :] = np.bitwise_xor.accumulate(weights[..., : self.chained, :], axis=-2)
        for index in range(self.length):
            if self.inverted(index):
                stored[..., index, :] = ~stored[..., index, :]
        return stored


def cut(steps: int, longest: int) -> tuple[Chain, ...]:
    """``steps`` vectors as chains of at most ``longest``: as many equal ones as fit, and one for what is left."""
    return (Chain(longest),) * (steps // longest) + ((Chain(steps % longest),) if steps % longest else ())
