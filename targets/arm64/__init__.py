"""arm64 targets: generic ARMv8-A with NEON, and boards by the name of their core."""

from __future__ import annotations

from bnn_deploy.targets.base import KernelSet, Target

_NEON = ("asimd",)
_CRC = (*_NEON, "crc32")
# What LLVM may use on ARMv8.2-A cores: half precision, dot products, atomics, load-acquire RCpc.
_V8_2 = (*_NEON, "fphp", "asimdhp", "asimddp", "atomics", "lrcpc")
# The Raspberry Pi 3 and 4 lack the cryptography that their cores may have.
_NO_CRYPTOGRAPHY = ("-aes", "-sha2")

# Binary MACs per cycle, from the vector instructions for 128 bits of X and W alone (docs/kernels.md, chains).
# Counting each vector is eor, cnt and add. A53 starts one such instruction in a cycle, A57 and A72 two. (Short chains are
# fewer instructions for A53, too, but wait for each other: they are modelled at 26, and so this is a limit for them as well.)
_IN_ORDER = 128 / 3
_COUNTING = 2 * 128 / 3
# The longest chain, of 9 vectors, is 9 eor, 4 bsl, 5 cnt and 5 additions: 23 instructions, two in a cycle. On A57 and A72
# bsl takes both pipes, which makes it 27 again, as many as counting. Cores with four pipes (Cortex-X, Neoverse V) can do more.
_CHAINS = 2 * 128 * 9 / 23

_OUT_OF_ORDER = KernelSet(
    "out-of-order",
    # Any core runs what LLVM makes for the oldest out-of-order one; for "generic" it schedules as for an in-order core,
    # and kernels take 8% more instructions.
    mcpu="cortex-a72",
    mattr=("-crc", *_NO_CRYPTOGRAPHY),
    binary_macs_per_cycle=_CHAINS,
)


def _board(
    name: str,
    description: str,
    core: str,
    flags: tuple[str, ...],
    binary_macs_per_cycle: float,
    mattr: tuple[str, ...] = (),
) -> Target:
    return Target(name, description, "arm64", core, mattr, flags, binary_macs_per_cycle=binary_macs_per_cycle)


ARM64_TARGETS = (
    Target(
        name="arm64",
        description="any 64-bit ARM (ARMv8-A with NEON), in-order or out-of-order",
        architecture="arm64",
        mcpu=_OUT_OF_ORDER.mcpu,
        mattr=_OUT_OF_ORDER.mattr,
        required_cpu_flags=_NEON,
        binary_macs_per_cycle=_OUT_OF_ORDER.binary_macs_per_cycle,
        kernel_sets=(
            _OUT_OF_ORDER,
            KernelSet("in-order", "cortex-a53", _OUT_OF_ORDER.mattr, binary_macs_per_cycle=_IN_ORDER),
        ),
    ),
    _board("rpi3", "Raspberry Pi 3 and Zero 2 W (Cortex-A53)", "cortex-a53", _CRC, _IN_ORDER, _NO_CRYPTOGRAPHY),
    _board("rpi4", "Raspberry Pi 4 (Cortex-A72)", "cortex-a72", _CRC, _COUNTING, _NO_CRYPTOGRAPHY),
    _board("rpi5", "Raspberry Pi 5 (Cortex-A76)", "cortex-a76", _V8_2, _CHAINS),
    _board("jetson-nano-cpu", "CPU of the Jetson Nano (Cortex-A57)", "cortex-a57", _CRC, _COUNTING),
    _board("orin-cpu", "CPU of the Jetson Orin family (Cortex-A78AE)", "cortex-a78ae", _V8_2, _CHAINS),
)
