"""What is said about the speed of a bundle: measured on boards, kept as JSON, compared with another run."""

from __future__ import annotations

from bnn_deploy.profiling.measuring import profile_bundle
from bnn_deploy.profiling.model import BoardReport, KernelTime, LostBoard, ProfileReport, Remark
from bnn_deploy.profiling.spread import Spread

__all__ = ["BoardReport", "KernelTime", "LostBoard", "ProfileReport", "Remark", "Spread", "profile_bundle"]
