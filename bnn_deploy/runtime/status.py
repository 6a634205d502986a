"""What a network's functions answer, as the C interface numbers it."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """``bnn_status`` of bnn_model.h, of which Python tells these apart."""

    OK = 0
    ARGUMENT = 1
    KERNEL = 4
    DEVICE = 6
