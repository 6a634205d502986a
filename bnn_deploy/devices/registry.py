"""The devices by name."""

from __future__ import annotations

from bnn_deploy.devices.base import Device
from bnn_deploy.devices.local import LocalDevice
from bnn_deploy.devices.qemu import QemuDevice
from bnn_deploy.errors import InputError

DEVICES: dict[str, type[Device]] = {device.name: device for device in (LocalDevice, QemuDevice)}


def get_device(name: str) -> Device:
    """The device of a name.

    Raises:
        InputError: there is none; lists the names.
    """
    if name not in DEVICES:
        raise InputError(f"There is no device {name!r}; the devices are {', '.join(DEVICES)}.")
    return DEVICES[name]()
