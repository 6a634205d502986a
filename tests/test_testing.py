"""The pytest plug-in and the examples for CI, run as users run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "ci"
TinyModel = Callable[[str, str | None], Path]


def _run(command: list[object], folder: Path, **environment: object) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # pytest-xdist tells its workers, and so would tell these tests, who they are.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GITHUB_"))}
    return subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**inherited, "PATH": path, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        timeout=600,
    )


def _pytest(folder: Path, code: str, *options: object) -> subprocess.CompletedProcess[str]:
    (folder / "test_mine.py").write_text(code)
    return _run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_mine.py"], folder)


def test_a_suite_gates_on_parity(tiny_model: TinyModel, tiny_bundle: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    """Breaks: a user's suite passes though the bundle is wrong, or says nothing of where."""
    other = tiny_model("bimlp_tiny", "released")
    code = f"""
def test_right(parity):
    assert parity({str(tiny_onnx)!r}, bundle={str(tiny_bundle)!r}, samples=2).model.agreements == 2

def test_wrong(parity):
    parity({str(other)!r}, bundle={str(tiny_bundle)!r}, levels=(2, 3))
"""
    ran = _pytest(tmp_path, code, "--parity-reports", "reports")
    assert ran.returncode == 1 and "1 failed, 1 passed" in ran.stdout, ran.stdout
    assert "FAILED test_mine.py::test_wrong" in ran.stdout and "the first wrong layer is" in ran.stdout, ran.stdout
    assert "validate.py" not in ran.stdout, "the reader gets a traceback through bnn-deploy"
    names = {path.name for path in (tmp_path / "reports").iterdir()}
    assert names == {
        f"test_mine_py_test_{name}{suffix}" for name in ("right", "wrong") for suffix in (".html", ".json", ".md")
    }
    assert json.loads((tmp_path / "reports" / "test_mine_py_test_wrong.json").read_text())["passed"] is False


def test_options_reach_the_device(tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Breaks: a team runs its suite against a board, and it runs on the build machine."""
    code = f"def test_it(parity):\n    parity({str(tiny_onnx)!r}, bundle={str(tiny_bundle)!r}, levels=(3,))\n"
    ran = _pytest(tmp_path, code, "--parity-device", "nowhere://x")
    assert ran.returncode == 1 and "nowhere://x" in ran.stdout, ran.stdout


def test_shell_script_gates(tiny_onnx: Path, tmp_path: Path) -> None:
    """Breaks: the example that teams copy passes what it should stop, or stops what is right."""
    script, out, summary = EXAMPLES / "parity.sh", tmp_path / "out", tmp_path / "summary.md"
    right = _run(
        ["bash", script, tiny_onnx, "host", "local", "--samples", 2],
        tmp_path,
        PARITY_OUT=out,
        GITHUB_STEP_SUMMARY=summary,
    )
    assert right.returncode == 0, right.stderr
    assert {path.name for path in out.iterdir()} == {
        "bundle",
        *(f"parity.{suffix}" for suffix in ("html", "xml", "md", "json")),
    }
    assert summary.read_text() == (out / "parity.md").read_text()
    # No float is equal to the last bit in another order of operations.
    wrong = _run(["bash", script, tiny_onnx, "host", "local", "--level", 2, "--margin", 0], tmp_path, PARITY_OUT=out)
    assert wrong.returncode == 1 and json.loads((out / "parity.json").read_text())["passed"] is False, wrong.stderr
    broken = _run(
        ["bash", script, tiny_onnx, "host", "local", "--data", tmp_path / "none.npz"], tmp_path, PARITY_OUT=out
    )
    assert broken.returncode == 2 and not (out / "parity.json").exists(), "an old report looks like this run's"


def test_workflow_runs_commands_that_exist(tiny_onnx: Path) -> None:
    """Breaks: the workflow that teams copy calls a command or an option that is not there."""
    job = yaml.safe_load((EXAMPLES / "parity.yml").read_text())["jobs"]["parity"]
    devices = [(entry["target"], entry["device"]) for entry in job["strategy"]["matrix"]["include"]]
    assert devices == [("host", "local"), ("arm64", "qemu")]
    commands = [
        line
        for step in job["steps"]
        for line in step.get("run", "").splitlines()
        if "parity.sh" in line or "bnn-deploy " in line
    ]
    assert any("parity.sh" in line for line in commands)
    for line in commands:
        for option in re.findall(r"bnn-deploy validate.*?(--[a-z-]+)", line):
            assert option in _run(["bnn-deploy", "validate", "--help"], ROOT).stdout
