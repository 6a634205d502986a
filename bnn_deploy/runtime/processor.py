"""Does this machine's processor run a bundle? Asked before its library is loaded: the answer would else be SIGILL."""

from __future__ import annotations

import platform
from pathlib import Path

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.errors import BundleError

MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
CPU_INFORMATION = Path("/proc/cpuinfo")


def check_processor(bundle: Bundle) -> None:
    """Refuse a bundle for another architecture, or for a processor with instructions that this one lacks.

    Raises:
        BundleError: names what is missing and what to do.
    """
    machine = platform.machine()
    if MACHINES.get(machine.lower()) != bundle.architecture:
        emulator = "; run it with `--device qemu`" if bundle.architecture == "arm64" and not bundle.gpu else ""
        raise BundleError(
            f"The bundle {bundle.path} is for {bundle.architecture} (target {bundle.target}), "
            f"this machine is {machine}{emulator or ', so compile it for this machine'}."
        )
    missing = bundle.missing_cpu_flags(cpu_flags())
    if missing:
        raise BundleError(
            f"The bundle {bundle.path} is for target {bundle.target}, whose instructions {', '.join(missing)} "
            "this processor lacks; compile the model for `--target host`."
        )


def cpu_flags() -> set[str]:
    """Names in the ``flags`` (x86) or ``Features`` (arm64) lines of /proc/cpuinfo that all processors here have."""
    lines = CPU_INFORMATION.read_text(encoding="utf-8", errors="replace").splitlines()
    sets = [
        set(line.partition(":")[2].split())
        for line in lines
        if line.partition(":")[0].strip().lower() in ("flags", "features")
    ]
    return set.intersection(*sets) if sets else set()
