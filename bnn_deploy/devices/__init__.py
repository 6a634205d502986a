"""Where bundles run: the machines behind ``--device``."""

from __future__ import annotations

from bnn_deploy.devices.base import BoardUse, Device, DeviceProfile, Session
from bnn_deploy.devices.registry import FORMS, get_device

__all__ = ["FORMS", "BoardUse", "Device", "DeviceProfile", "Session", "get_device"]
