"""One row of doctor's report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum


class Status(str, Enum):
    """How bad it is: an ERROR means that bnn-deploy, or a bundle, cannot work there at all."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Check:
    """One row of the report: what was looked at and found, and one sentence on what to do ("" when all is well)."""

    name: str
    status: Status
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """The row as JSON."""
        return {**asdict(self), "status": self.status.value}
