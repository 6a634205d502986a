"""Blocks of memory and where they lie: the smallest place for buffers of which each lives for some steps only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bnn_deploy.plan import Argument, Space

_ALIGNMENT = 64


@dataclass
class Buffer:
    """One block of memory.

    Attributes:
        size: in bytes; of those that are given a place by ``place_buffers``.
        first, last: the steps between which it must not be overwritten.
        place: where it lies; None before it is given a place.
    """

    size: int
    first: int = 0
    last: int = 0
    place: Argument | None = None

    @property
    def argument(self) -> Argument:
        """Where it lies."""
        assert self.place is not None, "buffers have addresses only after place_buffers"
        return self.place

    def at(self, stride: int = 0, every: int = 1) -> Moving:
        """The buffer as a stage's steps address it."""
        return Moving(self, stride, every)


@dataclass(frozen=True)
class Moving:
    """A buffer whose address moves on from block to block; ``stride`` and ``every`` are as in ``plan.Argument``."""

    buffer: Buffer
    stride: int = 0
    every: int = 1

    @property
    def argument(self) -> Argument:
        """The address, once the buffer is placed."""
        place = self.buffer.argument
        return Argument(place.space, place.offset, self.stride, self.every)


@dataclass
class Constants:
    """The bytes of all constants, each once. Plans that are given the same ``Constants`` share those that are equal."""

    data: bytearray = field(default_factory=bytearray)
    offsets: dict[bytes, int] = field(default_factory=dict)

    def buffer(self, data: bytes) -> Buffer:
        """The place of these bytes."""
        return Buffer(len(data), place=self.argument(data))

    def argument(self, data: bytes) -> Argument:
        """Where these bytes lie; they are added if they are not there."""
        if data not in self.offsets:
            self.data.extend(bytes(-len(self.data) % _ALIGNMENT))
            self.offsets[data] = len(self.data)
            self.data.extend(data)
        return Argument(Space.WEIGHTS, self.offsets[data])


def place_buffers(buffers: Iterable[Buffer], space: Space) -> int:
    """Give each buffer without a place an offset, largest first; returns the bytes of the space."""
    done: list[Buffer] = []
    for buffer in sorted((b for b in buffers if b.place is None), key=lambda b: (-b.size, b.first)):
        offset = 0
        alive = [other for other in done if other.first <= buffer.last and buffer.first <= other.last]
        for other in sorted(alive, key=lambda b: b.argument.offset):
            if offset + buffer.size <= other.argument.offset:
                break
            offset = max(offset, _aligned(other.argument.offset + other.size))
        buffer.place = Argument(space, offset)
        done.append(buffer)
    return max((_aligned(buffer.argument.offset + buffer.size) for buffer in done), default=0)


def _aligned(offset: int) -> int:
    return offset + -offset % _ALIGNMENT
