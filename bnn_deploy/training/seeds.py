"""Where all randomness of a training run comes from: numbers that are functions of what they are for.

No state goes from one draw to the next, so an interrupted run needs no state to go on, and neither the number of worker
processes nor that of training processes changes what is drawn.
"""

from __future__ import annotations

import hashlib
import json
import random

import torch

_BITS = 63


def seed_of(*parts: int | str) -> int:
    """A number in [0, 2**63) from SHA-256 of ``parts``, such as the run's seed, the step, the epoch and the image."""
    # JSON keeps apart what str() would not: ("a", "b") from ("ab",), and 1 from "1".
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> (64 - _BITS)


def share_of(*parts: int | str) -> float:
    """The same as a number in [0, 1]."""
    return seed_of(*parts) / (1 << _BITS)


def generator(*parts: int | str) -> torch.Generator:
    """A new generator for tensors on the CPU, seeded by ``parts``."""
    return torch.Generator().manual_seed(seed_of(*parts))


def dice(*parts: int | str) -> random.Random:
    """A new generator of single numbers, seeded by ``parts``."""
    return random.Random(seed_of(*parts))
