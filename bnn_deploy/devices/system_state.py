"""The state of a board that decides about its speed: processor, clock, temperature, throttling, memory.

The C runtime writes it as JSON (``bnn_deploy/runtime/system/system_state.c``, docs/profile.md describes the fields); this file
reads that, as untrusted text from another machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bnn_deploy.checked_fields import (
    Fields,
    choice,
    flag,
    number,
    object_of,
    optional,
    parse_json,
    printable_text,
    shown,
    whole,
)
from bnn_deploy.devices.arm_cores import ArmCore, arm_core
from bnn_deploy.errors import DeviceError

__all__ = ["HOT_CELSIUS", "SET_GOVERNOR", "ArmCore", "Processor", "SystemState", "arm_core", "throttling_text"]

MOST_PROCESSORS, MOST_TEMPERATURES = 4096, 256
_ADVICE = "compile the bundle again with this bnn-deploy, and see whether the board is in order"

# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
THROTTLING = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
SINCE_BOOT = 16
# The Raspberry Pi's firmware slows its cores down from 80 degrees Celsius on (85 on the GPU too); Jetsons do at 85 and more.
HOT_CELSIUS = 80.0
SET_GOVERNOR = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"


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

    @classmethod
    def from_fields(cls, fields: Fields) -> Processor:
        """One entry of ``cpus``; raises the error of the fields if one is not what it should be."""
        return cls(
            implementer=fields.find("implementer", whole(largest=0xFF)),
            part=fields.find("part", whole(largest=0xFFF)),
            khz=fields.find("khz", whole()),
            minimum_khz=fields.find("minimum_khz", whole()),
            maximum_khz=fields.find("maximum_khz", whole()),
            governor=fields.find("governor", printable_text()),
        )


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
        gpu_driver: version of NVIDIA's kernel driver, such as "550.54.15".
        gpu_name, gpu_compute_capability, gpu_memory_bytes: of the first GPU that nvidia-smi lists, such as "NVIDIA H200", "9.0".
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
    gpu_driver: str | None = None
    gpu_name: str | None = None
    gpu_compute_capability: str | None = None
    gpu_memory_bytes: int | None = None
    userland_bits: int | None = None
    glibc: str | None = None
    load_average: float | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    disk_available_bytes: int | None = None
    emulated: bool = False

    @classmethod
    def from_json(cls, text: str, where: str = "the state of the board") -> SystemState:
        """The state that a runner or a probe wrote; ``where`` is how errors name it.

        Raises:
            DeviceError: it is no such state; says which field is what instead of what.
        """
        return cls.from_fields(device_fields(text, where))

    @classmethod
    def from_fields(cls, fields: Fields) -> SystemState:
        """The same of what was parsed; fields that are not known are passed over, and errors are those of ``fields``."""
        words, bytes_ = printable_text(), whole()
        celsius = fields.take("temperatures", object_of(optional(number(-273.15, 1000.0)), MOST_TEMPERATURES))
        if not all(zone.isprintable() and len(zone) <= 80 for zone in celsius):
            raise fields.refusal("temperatures", "zones of printable names")
        return cls(
            host=fields.find("host", words) or "",
            board=fields.find("board", words),
            machine=fields.find("machine", words) or "",
            kernel=fields.find("kernel", words) or "",
            processors=tuple(map(Processor.from_fields, fields.objects("cpus", MOST_PROCESSORS))),
            cpu_flags=tuple((fields.find("cpu_flags", words) or "").split()),
            temperatures={zone: degrees for zone, degrees in celsius.items() if degrees is not None} or None,
            throttled=fields.find("throttled", whole(largest=0xFFFFFFFF)),
            power_mode=fields.find("power_mode", words),
            jetson_linux=fields.find("jetson_linux", words),
            cuda_version=fields.find("cuda_version", words),
            gpu_driver=fields.find("gpu_driver", words),
            gpu_name=fields.find("gpu_name", words),
            gpu_compute_capability=fields.find("gpu_compute_capability", words),
            gpu_memory_bytes=fields.find("gpu_memory_bytes", bytes_),
            userland_bits=fields.find("userland_bits", choice(32, 64)),
            glibc=fields.find("glibc", words),
            load_average=fields.find("load_average", number()),
            memory_total_bytes=fields.find("memory_total_bytes", bytes_),
            memory_available_bytes=fields.find("memory_available_bytes", bytes_),
            disk_available_bytes=fields.find("disk_available_bytes", bytes_),
            emulated=fields.take("emulated", flag),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON; ``from_json`` reads it back."""
        fields = asdict(self)
        del fields["processors"]
        return {
            **fields,
            "cpus": [{"cpu": number, **asdict(processor)} for number, processor in enumerate(self.processors)],
            "cpu_flags": " ".join(self.cpu_flags) or None,
            "temperatures": self.temperatures or {},
        }


def device_fields(text: str, where: str) -> Fields:
    """The fields of JSON that another machine wrote; whatever is wrong with it is a DeviceError, which names ``where``."""

    def refuse(problem: str) -> DeviceError:
        return DeviceError(f"{where}: {problem}; {_ADVICE}.")

    try:
        return Fields(parse_json(text), refuse)
    except ValueError as error:
        raise refuse(f"found {shown(text)}, expected JSON") from error


def throttling_text(bits: int) -> str:
    """The bits of ``vcgencmd get_throttled`` in words, such as "under-voltage now, throttled since boot"; "none" for 0."""
    words = []
    for bit, condition in THROTTLING.items():
        if bits >> bit & 1:
            words.append(f"{condition} now")
        elif bits >> (bit + SINCE_BOOT) & 1:
            words.append(f"{condition} since boot")
    known = sum(1 << bit | 1 << (bit + SINCE_BOOT) for bit in THROTTLING)
    if bits & ~known:
        words.append(f"unknown bits 0x{bits & ~known:x}")
    return ", ".join(words) or "none"
