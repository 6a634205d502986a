"""Where bundles run: the machines behind ``--device``."""

from __future__ import annotations

from bnn_deploy.devices.base import Device, DeviceProfile
from bnn_deploy.devices.registry import DEVICES, get_device

__all__ = ["DEVICES", "Device", "DeviceProfile", "get_device"]
