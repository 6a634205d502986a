"""What doctor found: the checks of this machine, or of every board of a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_deploy.doctor.check import Check, Status


@dataclass(frozen=True)
class BoardChecks:
    """The checks of one machine.

    Attributes:
        board: the device's name, or the name of one board among a device's several.
        checks: one row each.
    """

    board: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class DoctorReport:
    """Result of ``examine_this_machine`` and ``examine_device``.

    Attributes:
        device: whose boards were asked; None for this machine and what compiling takes.
        boards: at least one.
    """

    device: str | None
    boards: tuple[BoardChecks, ...]

    @property
    def works(self) -> bool:
        """No check of any board is an error."""
        return all(check.status is not Status.ERROR for board in self.boards for check in board.checks)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: one list of all checks, each with its board."""
        rows = [{"board": board.board, **check.to_dict()} for board in self.boards for check in board.checks]
        return {"works": self.works, "checks": rows}
