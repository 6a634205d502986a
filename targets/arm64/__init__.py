"""arm64 targets: generic ARMv8-A with NEON, and boards by the name of their core."""

from __future__ import annotations

from bnn_deploy.targets.base import Target

_NEON = ("asimd",)
# What LLVM may use on ARMv8.2-A cores: half precision, dot products, atomics, load-acquire RCpc.
_V8_2 = (*_NEON, "fphp", "asimdhp", "asimddp", "atomics", "lrcpc")
# The Raspberry Pi 3 and 4 lack the cryptography that their cores may have.
_NO_CRYPTOGRAPHY = ("-aes", "-sha2")

ARM64_TARGETS = (
    Target(
        name="arm64",
        description="any 64-bit ARM (ARMv8-A with NEON)",
        architecture="arm64",
        # Any core runs what LLVM makes for the oldest out-of-order one; for "generic" it schedules as for an in-order core,
        # and kernels take 8% more instructions.
        mcpu="cortex-a72",
        mattr=("-crc", *_NO_CRYPTOGRAPHY),
        required_cpu_flags=_NEON,
    ),
    Target(
        name="rpi3",
        description="Raspberry Pi 3 and Zero 2 W (Cortex-A53)",
        architecture="arm64",
        mcpu="cortex-a53",
        mattr=_NO_CRYPTOGRAPHY,
        required_cpu_flags=(*_NEON, "crc32"),
    ),
    Target(
        name="rpi4",
        description="Raspberry Pi 4 (Cortex-A72)",
        architecture="arm64",
        mcpu="cortex-a72",
        mattr=_NO_CRYPTOGRAPHY,
        required_cpu_flags=(*_NEON, "crc32"),
    ),
    Target(
        name="rpi5",
        description="Raspberry Pi 5 (Cortex-A76)",
        architecture="arm64",
        mcpu="cortex-a76",
        required_cpu_flags=_V8_2,
    ),
    Target(
        name="jetson-nano-cpu",
        description="CPU of the Jetson Nano (Cortex-A57)",
        architecture="arm64",
        mcpu="cortex-a57",
        required_cpu_flags=(*_NEON, "crc32"),
    ),
    Target(
        name="orin-cpu",
        description="CPU of the Jetson Orin family (Cortex-A78AE)",
        architecture="arm64",
        mcpu="cortex-a78ae",
        required_cpu_flags=_V8_2,
    ),
)
