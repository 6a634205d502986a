"""The state of a board that decides about its speed: processor, clock, temperature, throttling, memory.

The C runtime writes it as JSON (``bnn_deploy/runtime/system_state.c``, docs/profile.md describes the fields); this file reads
that, as untrusted text from another machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bnn_deploy.devices.arm_cores import ArmCore, arm_core
from bnn_deploy.devices.json_fields import JsonFields

__all__ = ["HOT_CELSIUS", "SET_GOVERNOR", "ArmCore", "Processor", "SystemState", "arm_core", "throttling_text"]

MOST_PROCESSORS, MOST_TEMPERATURES = 4096, 256
ADVICE = "compile the bundle again with this bnn-deploy, and see whether the board is in order"

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
    def from_fields(cls, fields: JsonFields) -> Processor:
        """One entry of ``cpus``.

        Raises:
            DeviceError: a field is not what it should be.
        """
        return cls(
            implementer=fields.whole("implementer", largest=0xFF),
            part=fields.whole("part", largest=0xFFF),
            khz=fields.whole("khz"),
            minimum_khz=fields.whole("minimum_khz"),
            maximum_khz=fields.whole("maximum_khz"),
            governor=fields.text("governor"),
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
    def from_json(cls, value: Any, where: str = "the state of the board") -> SystemState:
        """The state that a runner or a probe wrote.

        Args:
            value: the text of the JSON, or what was parsed of it; fields that are not known are passed over.
            where: how errors name it.

        Raises:
            DeviceError: it is no such state; says which field is what instead of what.
        """
        fields = JsonFields.parse(value, where, ADVICE) if isinstance(value, str) else JsonFields(value, where, ADVICE)
        temperatures = fields.inner("temperatures")
        zones = temperatures.names()
        if len(zones) > MOST_TEMPERATURES or not all(zone.isprintable() and len(zone) <= 80 for zone in zones):
            raise fields.fail("temperatures", f"at most {MOST_TEMPERATURES} zones of printable names")
        celsius = {zone: temperatures.number(zone, -273.15, 1000.0) for zone in zones}
        userland_bits = fields.whole("userland_bits")
        if userland_bits not in (None, 32, 64):
            raise fields.fail("userland_bits", "32, 64, or null")
        return cls(
            host=fields.text("host") or "",
            board=fields.text("board"),
            machine=fields.text("machine") or "",
            kernel=fields.text("kernel") or "",
            processors=tuple(map(Processor.from_fields, fields.objects("cpus", MOST_PROCESSORS))),
            cpu_flags=tuple((fields.text("cpu_flags") or "").split()),
            temperatures={zone: number for zone, number in celsius.items() if number is not None} or None,
            throttled=fields.whole("throttled", largest=0xFFFFFFFF),
            power_mode=fields.text("power_mode"),
            jetson_linux=fields.text("jetson_linux"),
            cuda_version=fields.text("cuda_version"),
            gpu_driver=fields.text("gpu_driver"),
            gpu_name=fields.text("gpu_name"),
            gpu_compute_capability=fields.text("gpu_compute_capability"),
            gpu_memory_bytes=fields.whole("gpu_memory_bytes"),
            userland_bits=userland_bits,
            glibc=fields.text("glibc"),
            load_average=fields.number("load_average"),
            memory_total_bytes=fields.whole("memory_total_bytes"),
            memory_available_bytes=fields.whole("memory_available_bytes"),
            disk_available_bytes=fields.whole("disk_available_bytes"),
            emulated=fields.truth("emulated"),
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
