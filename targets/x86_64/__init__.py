"""x86-64 targets, by the levels of the psABI; the level above VPOPCNTDQ-less AVX-512 has no official name."""

from __future__ import annotations

from bnn_deploy.targets.base import Target

_V3_FLAGS = ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe")
_V4_FLAGS = (*_V3_FLAGS, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")

# No binary_macs_per_cycle here: cores of one level start two (Ice Lake, Zen 4) or four (Zen 5) 512-bit instructions in a cycle.
# Oldest first: the last one that a machine can run is the best for it.
X86_64_TARGETS = (
    Target(
        name="x86-64-v3",
        description="x86-64 with AVX2 (Intel since Haswell, AMD since Excavator)",
        architecture="x86_64",
        mcpu="x86-64-v3",
        required_cpu_flags=_V3_FLAGS,
        vector_bits=256,
    ),
    Target(
        name="x86-64-v4",
        description="x86-64 with AVX-512 but without its popcount (Skylake-X, Cascade Lake)",
        architecture="x86_64",
        mcpu="x86-64-v4",
        required_cpu_flags=_V4_FLAGS,
        vector_bits=512,
    ),
    Target(
        name="x86-64-v4-vpopcntdq",
        description="x86-64 with AVX-512 VPOPCNTDQ (Intel since Ice Lake, AMD since Zen 4)",
        architecture="x86_64",
        mcpu="x86-64-v4",
        mattr=("+avx512vpopcntdq",),
        required_cpu_flags=(*_V4_FLAGS, "avx512_vpopcntdq"),
        vector_bits=512,
    ),
)
