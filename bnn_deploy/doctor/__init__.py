"""What works, what does not, and what to do about it: on this machine, and on the boards of a device."""

from __future__ import annotations

from bnn_deploy.doctor.boards import BoardReport, examine_device
from bnn_deploy.doctor.check import Check, Status
from bnn_deploy.doctor.this_machine import examine

__all__ = ["BoardReport", "Check", "Status", "examine", "examine_device"]
