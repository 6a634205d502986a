"""A board's operating system: is it 64-bit, and which C library has it."""

from __future__ import annotations

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.doctor.check import Check, Status
from bnn_deploy.doctor.glibc_versions import newest_glibc_needed, parse_version
from bnn_deploy.runtime.processor import MACHINES

INSTALL_64_BIT = "install a 64-bit system (Raspberry Pi OS: the edition called 64-bit)"
RUNNER_WORKS = "the static runner, which --device ssh://… uses, works all the same"


def check_system(state: SystemState) -> Check:
    """The kernel and the programs have to be 64-bit; a Raspberry Pi often has a 64-bit kernel under 32-bit programs."""
    kernel = f"{state.kernel} on {state.machine}"
    if state.machine.lower() not in MACHINES:
        if state.machine.startswith("arm"):
            advice = f"Bundles are 64-bit: {INSTALL_64_BIT}; every Raspberry Pi since the 3 and Zero 2 W can run it."
        else:
            advice = f"Use a board with a 64-bit kernel for {' or '.join(sorted(set(MACHINES.values())))}."
        return Check("system", Status.ERROR, kernel, advice)
    if state.userland_bits == 32:
        advice = f"model.so and Python need 64-bit programs: {INSTALL_64_BIT}; {RUNNER_WORKS}."
        return Check("system", Status.WARNING, f"{kernel}, but 32-bit programs", advice)
    programs = "" if state.userland_bits is None else f", {state.userland_bits}-bit programs"
    return Check("system", Status.OK, f"{kernel}{programs}")


def check_glibc(state: SystemState, bundle: Bundle | None) -> Check:
    """The C library; with a bundle, against what its ``model.so`` asks for.

    Raises:
        BundleError: the bundle's ``model.so`` is damaged.
    """
    needed = newest_glibc_needed(bundle.library) if bundle is not None else None
    # The runner of a GPU's bundle loads the driver, a shared library, and so is no static program.
    runner_works = RUNNER_WORKS if bundle is None or bundle.gpu is None else "the runner needs it, too"
    wanted = "" if needed is None else f", model.so needs {'.'.join(map(str, needed))}"
    found = f"{state.glibc or 'none found'}{wanted}"
    try:
        version = parse_version(state.glibc) if state.glibc is not None else None
    except ValueError:
        version = None
    if version is None:
        advice = f"model.so and Python packages need glibc, so use a system that has it; {runner_works}."
        return Check("glibc", Status.WARNING, found, advice)
    if needed is not None and version < needed:
        advice = f"To load model.so there, install a newer system; {runner_works}."
        return Check("glibc", Status.WARNING, found, advice)
    return Check("glibc", Status.OK, found)
