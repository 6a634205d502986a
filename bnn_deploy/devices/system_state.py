"""The state of a board that decides about its speed: processor, clock, temperature, throttling, memory.

The C runtime writes it as JSON (``bnn_deploy/runtime/system_state.c``, docs/profile.md describes the fields); this file reads
that, as untrusted text from another machine.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Processor:
    """One CPU of a board; what the board does not tell is None.

    Attributes:
        implementer, part: of Arm's MIDR register, such as 0x41 and 0xD08 for a Cortex-A72; None on x86-64.
        khz, minimum_khz, maximum_khz: present clock and its limits, in kHz.
        governor: Linux's frequency governor, such as "ondemand".
    """

    implementer: int | None = None
    part: int | None = None
    khz: int | None = None
    minimum_khz: int | None = None
    maximum_khz: int | None = None
    governor: str | None = None


@dataclass(frozen=True)
class SystemState:
    """A board at one moment; what it does not tell is None or empty.

    Attributes:
        host: its host name.
        board: name in the device tree, such as "Raspberry Pi 4 Model B Rev 1.4".
        machine: of uname, such as "aarch64".
        kernel: of uname, such as "Linux 6.6.31+rpt-rpi-v8".
        processors: one for each CPU that is online.
        cpu_flags: "Features" or "flags" of /proc/cpuinfo.
        temperatures: degrees Celsius by the name of the thermal zone.
        throttled: the bits of the Raspberry Pi's ``vcgencmd get_throttled``.
        power_mode: of Jetson's ``nvpmodel -q``, such as "MAXN".
        jetson_linux: NVIDIA's L4T release, such as "R36.4.3", from /etc/nv_tegra_release.
        cuda_version: of the CUDA toolkit under /usr/local/cuda, such as "12.6.68".
        userland_bits: 32 or 64, of the programs that are installed there (the ELF class of /bin/sh).
        glibc: version of the C library that is installed there, such as "2.36".
        load_average: runnable processes over the last minute.
        memory_total_bytes, memory_available_bytes: MemTotal and MemAvailable of /proc/meminfo.
        disk_available_bytes: free space where the probe ran.
        emulated: it is a program under qemu's user mode that looks.
    """

    host: str = ""
    board: str | None = None
    machine: str = ""
    kernel: str = ""
    processors: tuple[Processor, ...] = ()
    cpu_flags: tuple[str, ...] = ()
    temperatures: dict[str, float] | None = None
    throttled: int | None = None
    power_mode: str | None = None
    jetson_linux: str | None = None
    cuda_version: str | None = None
    userland_bits: int | None = None
    glibc: str | None = None
    load_average: float | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    disk_available_bytes: int | None = None
    emulated: bool = False
