"""``doctor`` tells what works here, and for the rest one sentence on what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bnn_deploy.cli import command_line
from bnn_deploy.doctor import this_machine as doctor
from bnn_deploy.doctor.check import Check, Status
from bnn_deploy.doctor.report import BoardChecks, DoctorReport


def test_examines_this_machine() -> None:
    """Breaks if a check is missing, contradicts this machine (which runs the tests), or the exit code is wrong."""
    result = CliRunner().invoke(command_line, ["doctor", "--format", "json"])
    assert result.exit_code == 0, result.stdout
    report = json.loads(result.stdout)
    assert report["works"] is True
    checks = {check["name"]: check for check in report["checks"]}
    wanted = {"python", *doctor.PACKAGES, "host target", "linker for this machine", "linker for arm64", "qemu-aarch64"}
    assert {*wanted, "GPU compiler", "GPU", "ssh", "disk", "memory"} == set(checks)
    assert checks["python"]["found"].startswith(sys.version.split()[0])
    assert checks["linker for arm64"]["status"] == "ok"
    for check in checks.values():
        assert check["status"] in ("ok", "warning", "error")
        assert check["advice"] or check["status"] == "ok"


def found_here(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> None:
    """Let these be what doctor finds on this machine."""
    report = DoctorReport(None, (BoardChecks("here", checks),))
    monkeypatch.setattr("bnn_deploy.doctor.this_machine.examine_this_machine", lambda progress: report)


def test_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a machine where nothing works gets exit code 0, or does not hear why."""
    broken = (Check("torch", Status.ERROR, "not installed", "Install it."), Check("disk", Status.OK, "fine"))
    found_here(monkeypatch, *broken)
    result = CliRunner().invoke(command_line, ["doctor"])
    assert result.exit_code == 2
    assert "torch: Install it." in result.stdout and "cannot work here" in result.stdout


def test_warnings_do_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a machine without qemu is said not to work at all."""
    found_here(monkeypatch, Check("qemu", Status.WARNING, "not found", "apt it."))
    result = CliRunner().invoke(command_line, ["doctor"])
    assert result.exit_code == 0 and "can work here" in result.stdout and "qemu: apt it." in result.stdout


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a missing package is not found out, or the advice does not name it."""
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "surely-not-a-package"))
    present, missing = doctor.check_packages()
    assert present.status is Status.OK and present.found
    assert missing.status is Status.ERROR and "surely-not-a-package" in missing.advice


@pytest.mark.parametrize(("version", "says"), [("2.13.0", "not the CPU build"), ("2.13.0+cpu", "2.13.0+cpu")])
def test_kind_of_torch(version: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the gigabytes of a CUDA torch go unmentioned."""
    monkeypatch.setattr(doctor, "PACKAGES", ("torch",))
    monkeypatch.setattr(doctor.metadata, "version", lambda name: version)
    (check,) = doctor.check_packages()
    assert check.status is Status.OK and says in check.found


def test_broken_linker(tmp_path: Path) -> None:
    """Breaks if a compiler that fails counts as a compiler."""
    (tmp_path / "bad.c").write_text("this is no C")
    check = doctor.check_link("arm64", tmp_path / "bad.c", tmp_path / "bad", ["-target", "aarch64-linux-musl"])
    assert check.status is Status.ERROR and "error" in check.found and check.advice


def test_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a missing or failing emulator counts as working."""
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "hello"
    program.write_text("")
    assert doctor.check_emulator(program).found == "not found"
    emulator = tmp_path / "qemu-aarch64"
    for script, status in (("exit 1", Status.WARNING), ("echo wrong", Status.WARNING), ("echo hello", Status.OK)):
        emulator.write_text(f"#!/bin/sh\n{script}\n")
        emulator.chmod(0o755)
        assert doctor.check_emulator(program).status is status
    assert "not tried" in doctor.check_emulator(tmp_path / "missing").found


def test_ssh_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if somebody without an ssh client learns of it only when a board cannot be reached."""
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = doctor.check_ssh()
    assert missing.status is Status.WARNING and "openssh-client" in missing.advice
    (tmp_path / "ssh").write_text("")
    (tmp_path / "ssh").chmod(0o755)
    assert doctor.check_ssh() == Check("ssh", Status.OK, str(tmp_path / "ssh"))


def test_timeout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks if a linker that hangs makes doctor hang."""

    def hang(command: list[str], **options: object) -> None:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(doctor.subprocess, "run", hang)
    check = doctor.check_link("arm64", tmp_path / "x.c", tmp_path / "x", [])
    assert check.status is Status.ERROR and "no answer after" in check.found


def test_little_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks if a nearly full disk or memory is not mentioned."""
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10**8}))
    assert doctor.check_disk(tmp_path).status is Status.WARNING
    monkeypatch.setattr(doctor, "_available_memory", lambda: 10**8)
    assert doctor.check_memory().status is Status.WARNING
    monkeypatch.setattr(doctor, "_available_memory", lambda: 10**11)
    assert doctor.check_memory().status is Status.OK
