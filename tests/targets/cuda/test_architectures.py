"""GPU targets: the table of the architectures, ``cuda`` with an architecture, and how the command line offers them."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from bnn_deploy.codegen.device_code import CUDA_OF_PTX
from bnn_deploy.errors import TargetError
from bnn_deploy.targets import registry
from bnn_deploy.targets.cuda.architectures import ARCHITECTURES, architecture
from bnn_deploy.targets.cuda.local_gpu import LocalGpu
from bnn_deploy.targets.registry import all_targets, get_target

Invoke = Callable[..., Result]


def test_dot_products() -> None:
    """Breaks if an architecture gets an instruction that it lacks or emulates; test_cuda_compiler.py has the machine code."""
    found = {row.sm: row.dot_product for row in ARCHITECTURES}
    assert found == {
        **dict.fromkeys((53, 60, 61, 62, 70, 72), "popc"),
        75: "xor_8x8x128",
        **dict.fromkeys((80, 86, 87, 89), "xor_16x8x256"),
        90: "and_16x8x256",
    }


def test_table_is_in_order_and_complete() -> None:
    """Breaks if a row has no reason, a limit has no source, or needs a PTX version that no driver is known for."""
    assert [row.sm for row in ARCHITECTURES] == sorted({row.sm for row in ARCHITECTURES})
    for row in ARCHITECTURES:
        assert row.reason and (row.binary_macs_per_clock is None) == (row.source is None)
        assert tuple(map(int, row.ptx_isa.split("."))) in CUDA_OF_PTX
    assert {row.sm for row in ARCHITECTURES if row.has_cp_async} == {80, 86, 87, 89, 90}


@pytest.mark.parametrize(
    ("sm", "advice"),
    [
        (50, "use a newer GPU"),
        (88, "compile for sm_87, whose PTX"),
        (100, "compile for sm_90, whose PTX"),
        (5, "newer"),
    ],
)
def test_unknown_architecture(sm: int, advice: str) -> None:
    """Breaks if a GPU without kernels gets a traceback, or its owner is not told what would run on it."""
    with pytest.raises(
        TargetError, match=rf"^There are no kernels for sm_{sm}: .*{advice}.*known: sm_53, .*sm_90\)\.$"
    ):
        architecture(sm)


def test_presets_are_in_the_table() -> None:
    """Breaks if a preset's GPU has no kernels, or its host code asks for more than the board's processor has."""
    for target in all_targets():
        if target.gpu is not None:
            assert architecture(target.gpu.sm).name == target.gpu.arch
            assert set(target.required_cpu_flags) <= {"asimd"}


def test_cuda_by_architecture() -> None:
    """Breaks if --arch does not decide, or the name that a bundle records is not one that --target takes."""
    target = get_target("cuda", "sm_86")
    assert (target.name, target.architecture) == ("cuda-sm_86", "x86_64")
    assert target.gpu is not None and target.gpu.compute_capability == "8.6"
    assert get_target(target.name) == target


@pytest.mark.parametrize("arch", ["86", "sm_8.6", "sm_", "compute_86", "sm_86 ", "sm_90a"])
def test_no_architecture(arch: str) -> None:
    """Breaks if a misspelt architecture is a traceback or taken for another."""
    with pytest.raises(TargetError, match=r"is no GPU architecture: expected sm_ and its number, such as sm_87\.$"):
        get_target("cuda", arch)


def test_architecture_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if --target cuda alone does not take this machine's GPU, or guesses one where there is none."""
    gpu = LocalGpu("NVIDIA L4", 89, (12, 4), 24 << 30)
    monkeypatch.setattr(registry, "local_gpu", lambda: gpu)
    assert get_target("cuda").name == "cuda-sm_89"
    monkeypatch.setattr(registry, "local_gpu", lambda: replace(gpu, sm=120))
    with pytest.raises(TargetError, match="compile for sm_90, whose PTX"):
        get_target("cuda")


def no_driver(name: str) -> ctypes.CDLL:
    raise OSError(f"{name}: cannot open shared object file")


def test_no_driver_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a machine without a GPU gets a traceback, or an architecture is guessed there."""
    monkeypatch.setattr(ctypes, "CDLL", no_driver)
    with pytest.raises(
        TargetError, match=r"^--target cuda needs --arch, .*: NVIDIA's driver, libcuda\.so\.1, was not found"
    ):
        get_target("cuda")


@pytest.mark.parametrize("name", ["orin", "host", "arm64"])
def test_arch_goes_with_cuda_only(name: str, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if --arch with another target is silently ignored."""
    result = invoke("compile", tmp_path / "x.onnx", "--target", name, "--arch", "sm_86", "-o", tmp_path / "B")
    assert result.exit_code == 2
    assert result.stderr.endswith(f"--arch sm_86 goes with --target cuda only: {name} has its own architecture.\n")


def test_targets_lists_gpus(invoke: Invoke) -> None:
    """Breaks if nobody can see which GPUs there are kernels for, with which instruction, or what is known of their speed."""
    listed = json.loads(invoke("targets", "--format", "json").stdout)
    gpus = {row["name"]: row["gpu"] for row in listed["targets"]}
    assert gpus["orin"] == {"arch": "sm_87", "dot_product": "xor_16x8x256"} and gpus["orin-cpu"] is None
    assert [row["arch"] for row in listed["gpus"]] == [row.name for row in ARCHITECTURES]
    assert {row["arch"]: row["binary_macs_per_clock"] for row in listed["gpus"]}["sm_87"] is None
    lines = invoke("targets").stdout.splitlines()
    assert any(line.split()[:4] == ["orin", "arm64", "+", "sm_87"] for line in lines)
    assert any(line.split()[:2] == ["sm_72", "popc"] for line in lines)
    assert any(line.split()[:1] == ["cuda"] for line in lines)
