"""The devices by what the user types after ``--device``."""

from __future__ import annotations

from collections.abc import Callable

from bnn_deploy.devices.base import TIMEOUT_SECONDS, Device
from bnn_deploy.devices.local import LocalDevice
from bnn_deploy.devices.qemu import QemuDevice
from bnn_deploy.devices.rpc import RpcDevice
from bnn_deploy.devices.ssh import SshDevice
from bnn_deploy.devices.tracker import TrackerDevice
from bnn_deploy.errors import InputError

# A name, or the scheme of an address: local, qemu, ssh://…
DEVICES: dict[str, Callable[[float], Device]] = {"local": LocalDevice, "qemu": QemuDevice}
ADDRESSED: dict[str, Callable[[str, float], Device]] = {"rpc": RpcDevice, "ssh": SshDevice, "tracker": TrackerDevice}

FORMS = ("local", "qemu", "rpc://HOST:PORT", "ssh://[USER@]HOST[:PORT]", "tracker://HOST:PORT/KEY")


def get_device(name: str, timeout: float = TIMEOUT_SECONDS) -> Device:
    """The device of a name or an address.

    Args:
        name: one of ``FORMS``.
        timeout: seconds that one batch, or one profile, may take there.

    Raises:
        InputError: there is no such device, or the address is malformed; lists the forms.
    """
    scheme = name.partition("://")[0]
    if name in DEVICES:
        return DEVICES[name](timeout)
    if "://" in name and scheme in ADDRESSED:
        return ADDRESSED[scheme](name, timeout)
    raise InputError(f"There is no device {name!r}; the devices are {', '.join(FORMS)}.")
