"""The registry of targets."""

from __future__ import annotations

from pathlib import Path

import pytest
import tvm
from tvm.target import codegen

from bnn_deploy.errors import TargetError
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.registry import all_targets, cpu_targets, get_target, host_target, missing_cpu_flags
from bnn_deploy.targets.table import select_kernel

TRIPLES = {"x86_64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
V3 = "avx avx2 bmi1 bmi2 f16c fma abm movbe"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


def test_promised_targets_exist() -> None:
    """A target that the documentation names is gone."""
    promised = "x86-64-v3 x86-64-v4 x86-64-v4-vpopcntdq arm64 rpi3 rpi4 rpi5 jetson-nano-cpu orin-cpu"
    assert [target.name for target in cpu_targets()] == promised.split()
    gpus = [(target.name, target.architecture, target.gpu.sm) for target in all_targets() if target.gpu]
    assert gpus == [
        ("jetson-nano", "arm64", 53),
        ("jetson-xavier", "arm64", 72),
        ("orin", "arm64", 87),
        ("h200", "x86_64", 90),
    ]


def test_unknown_name_lists_targets() -> None:
    """A typing mistake is answered without the names that would have worked."""
    with pytest.raises(TargetError, match=r"Unknown target 'rpi6'\. Did you mean rpi5.*Targets: host, x86-64-v3.*orin"):
        get_target("rpi6")


def information(folder: Path, line: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(f"processor\t: 0\nmodel name\t: some processor\n{line}\n\nprocessor\t: 1\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (f"flags\t\t: fpu sse2 {V3}", "x86-64-v3"),
        (f"flags\t\t: fpu sse2 {V4}", "x86-64-v4"),
        (f"flags\t\t: fpu sse2 {V4} avx512_vpopcntdq", "x86-64-v4-vpopcntdq"),
        # Knights Mill: VPOPCNTDQ without the byte and word instructions.
        (f"flags\t\t: fpu sse2 {V3} avx512f avx512cd avx512_vpopcntdq", "x86-64-v3"),
        ("Features\t: fp asimd evtstrm crc32 cpuid", "arm64"),
    ],
)
def test_host_detection(tmp_path: Path, line: str, name: str) -> None:
    """The host gets code that it cannot run, or less than it could run."""
    assert host_target(information(tmp_path, line)).name == name


@pytest.mark.parametrize(
    "line", ["flags\t\t: fpu sse2 ssse3 avx", "Features\t: half thumb neon vfpv4", "isa\t: rv64gc"]
)
def test_host_that_is_no_target(tmp_path: Path, line: str) -> None:
    """An old processor gets a traceback, or code that it cannot run."""
    with pytest.raises(TargetError, match="This processor is none of the targets"):
        host_target(information(tmp_path, line))


def test_host_is_concrete() -> None:
    """``host`` resolves to a target that this machine cannot run."""
    try:
        target = get_target("host")
    except TargetError as error:
        pytest.skip(str(error))
    assert target in all_targets() and missing_cpu_flags(target) == ()


def has_feature(target: Target, feature: str) -> bool:
    return bool(codegen.llvm_cpu_has_features(feature, tvm.target.Target(target.llvm)))


@pytest.mark.parametrize("target", all_targets(), ids=lambda target: target.name)
def test_llvm_knows_the_processor(target: Target) -> None:
    """LLVM ignores a misspelt processor or feature and compiles for its oldest one."""
    for _, variant in target.variants:
        assert codegen.llvm_is_valid_cpu(variant.mcpu, TRIPLES[target.architecture])
        for attribute in variant.mattr:
            assert has_feature(variant, attribute[1:]) == attribute.startswith("+"), attribute


def test_kernel_sets() -> None:
    """The generic target has no kernels for in-order cores under the name that the runtime looks for, or not the boards' own."""
    generic = get_target("arm64")
    assert [name for name, _ in generic.variants] == ["out-of-order", "in-order"]
    first, in_order = (variant for _, variant in generic.variants)
    assert (first.mcpu, first.mattr, first.binary_macs_per_cycle) == (
        generic.mcpu,
        generic.mattr,
        generic.binary_macs_per_cycle,
    )
    layer = ConvolutionSpecification(1, 14, 14, 512, 512, (3, 3), (1, 1), (1, 1, 1, 1))
    assert select_kernel(layer, in_order).name == select_kernel(layer, get_target("rpi3")).name
    assert select_kernel(layer, first).name == select_kernel(layer, get_target("rpi5")).name
    assert select_kernel(layer, first).name != select_kernel(layer, in_order).name
    assert all(target.variants == (("", target),) for target in all_targets() if target is not generic)


def test_limits_of_processors() -> None:
    """``profile`` compares a board with what its core can reach: with another's, or with more than is possible."""
    # 128 bits for 3 instructions, of which a core starts one or two at a time, or 9 vectors for 23 of them.
    in_order, counting, chains = 128 / 3, 256 / 3, 256 * 9 / 23
    limits = {"rpi3": in_order, "rpi4": counting, "jetson-nano-cpu": counting}
    limits |= dict.fromkeys(("arm64", "rpi5", "orin-cpu"), chains)
    found = {target.name: target.binary_macs_per_cycle for target in all_targets() if target.name in limits}
    assert found == pytest.approx(limits)
    assert [variant.binary_macs_per_cycle for _, variant in get_target("arm64").variants] == [
        pytest.approx(chains),
        pytest.approx(in_order),
    ]


@pytest.mark.parametrize(
    ("feature", "names"),
    [
        ("avx2", {"x86-64-v3", "x86-64-v4", "x86-64-v4-vpopcntdq"}),
        ("avx512f", {"x86-64-v4", "x86-64-v4-vpopcntdq"}),
        ("avx512vpopcntdq", {"x86-64-v4-vpopcntdq"}),
        ("neon", {"arm64", "rpi3", "rpi4", "rpi5", "jetson-nano-cpu", "orin-cpu"}),
        ("dotprod", {"rpi5", "orin-cpu"}),
        ("sve", set()),
    ],
)
def test_features(feature: str, names: set[str]) -> None:
    """LLVM may use an instruction set that a target's processor lacks, or not one that it has."""
    assert {target.name for target in cpu_targets() if has_feature(target, feature)} == names
