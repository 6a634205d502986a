"""What works, what does not, and what to do about it: on this machine, and on the boards of a device."""

from __future__ import annotations

from bnn_deploy.doctor.boards import examine_device
from bnn_deploy.doctor.check import Check, Status
from bnn_deploy.doctor.report import BoardChecks, DoctorReport
from bnn_deploy.doctor.this_machine import examine_this_machine

__all__ = ["BoardChecks", "Check", "DoctorReport", "Status", "examine_device", "examine_this_machine"]
