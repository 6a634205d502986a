"""The machine code that LLVM makes of the kernels: the vector instructions they are written for, and none that fault."""

from __future__ import annotations

import re

import pytest
import tvm

from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.pack_specification import SignPackSpecification, TernaryPackSpecification
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification, Specification
from bnn_deploy.targets.registry import cpu_targets, get_target
from bnn_deploy.targets.table import select_kernel

CONVOLUTION = ConvolutionSpecification(1, 14, 14, 128, 64, (3, 3), (1, 1), (1, 1, 1, 1))
TERNARY = ConvolutionSpecification(1, 14, 14, 128, 64, (1, 1), ternary=True)
DEPTHWISE = ConvolutionSpecification(1, 14, 14, 128, 64, (1, 7), (1, 1), (0, 3, 0, 3), group=64)
SIGN_PACK = SignPackSpecification(1, 14, 14, 128, (1, 1, 1, 128))
THREE_SIGN_PACK = SignPackSpecification(1, 14, 14, 128, (1, 1, 1, 128), zero=0)
TERNARY_PACK = TernaryPackSpecification(1, 14, 14, 128)

# Registers of 512 bits, the upper 16, and masks: all need AVX-512.
AVX512 = r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])\b|%k[0-7]\b"
# Dot products, SVE registers, half precision: more than ARMv8.0-A.
BEYOND_ARMV8 = r"\b[su]dot\b|\bz\d+\.[bhsd]|\.8h, .*fcvt|\bfadd\s+v\d+\.8h"


def assembly(specification: Specification, target: Target) -> str:
    """The code of the task, after the loop over tasks was cut out of the function."""
    function = select_kernel(specification, target).build().with_attr("global_symbol", "kernel")
    compiled = tvm.tirx.build(function, tvm.target.Target(target.llvm))
    text = compiled.inspect_source("asm")
    return text[text.index("lambda") :]


@pytest.mark.parametrize(
    ("name", "specification", "instruction"),
    [
        ("x86-64-v3", CONVOLUTION, r"vpshufb\s.*%ymm"),
        ("x86-64-v4", CONVOLUTION, r"vpshufb\s.*%zmm"),
        ("x86-64-v4", CONVOLUTION, r"vpternlogd\s+\$178,.*%zmm"),
        ("x86-64-v4", CONVOLUTION, r"vpternlogd\s+\$232,.*%zmm"),
        ("x86-64-v4-vpopcntdq", CONVOLUTION, r"vpopcntd\s.*%zmm"),
        ("arm64", CONVOLUTION, r"cnt\s+v\d+\.16b"),
        ("rpi5", CONVOLUTION, r"cnt\s+v\d+\.16b"),
        ("x86-64-v3", CONVOLUTION, r"vfmadd\d+ps\s.*%ymm"),
        ("x86-64-v4", CONVOLUTION, r"vfmadd\d+ps\s.*%zmm"),
        ("arm64", CONVOLUTION, r"fmla\s+v\d+\.4s"),
        ("x86-64-v4-vpopcntdq", TERNARY, r"vpternlog[dq]\s.*%zmm"),
        ("x86-64-v3", DEPTHWISE, r"vpsrlvd\s.*%ymm"),
        ("x86-64-v4", DEPTHWISE, r"vpsrlvd\s.*%zmm"),
        ("arm64", DEPTHWISE, r"ushl\s+v\d+\.4s"),
        ("x86-64-v3", SIGN_PACK, r"vpmovmskb\s+%ymm"),
        ("x86-64-v4", SIGN_PACK, r"vcmp\w+\s.*%zmm.*%k"),
        ("arm64", SIGN_PACK, r"fcmg[te]\s+v\d+\.4s"),
        ("x86-64-v3", THREE_SIGN_PACK, r"vpmovmskb\s+%ymm"),
        ("x86-64-v4", THREE_SIGN_PACK, r"vcmp\w+\s.*%zmm.*%k"),
        ("arm64", THREE_SIGN_PACK, r"fcmg[te]\s+v\d+\.4s"),
        ("x86-64-v3", TERNARY_PACK, r"vpmovmskb\s+%ymm"),
        ("arm64", TERNARY_PACK, r"fcmg[te]\s+v\d+\.4s"),
    ],
)
def test_vector_instructions(name: str, specification: Specification, instruction: str) -> None:
    """A kernel is no longer vectorised as intended, and many times slower."""
    assert re.search(instruction, assembly(specification, get_target(name)))


@pytest.mark.parametrize(
    "target",
    [variant for target in cpu_targets() for _, variant in target.variants],
    ids=lambda target: f"{target.name}-{target.mcpu}",
)
@pytest.mark.parametrize(
    "specification", [CONVOLUTION, DEPTHWISE, SIGN_PACK, TERNARY_PACK], ids=lambda s: type(s).__name__
)
def test_no_foreign_instructions(target: Target, specification: Specification) -> None:
    """A kernel holds instructions that the oldest processor of its target does not have."""
    code = assembly(specification, target)
    if target.architecture == "arm64" and "asimddp" not in target.required_cpu_flags:
        assert not re.search(BEYOND_ARMV8, code)
    if target.architecture == "x86_64":
        if "avx512f" not in target.required_cpu_flags:
            assert not re.search(AVX512, code)
        if "avx512_vpopcntdq" not in target.required_cpu_flags:
            assert "vpopcnt" not in code


def test_patterns_find_foreign_instructions() -> None:
    """The patterns above match nothing, so that the tests with them cannot fail."""
    assert re.search(AVX512, assembly(CONVOLUTION, get_target("x86-64-v4")))
    assert re.search(BEYOND_ARMV8, "\tudot\tv0.4s, v1.16b, v2.16b")
