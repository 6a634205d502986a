"""Counts the instructions that an arm64 program executes under qemu-user. They are no latencies."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bnn_deploy.errors import ToolError

PLUGIN_SOURCE = Path(__file__).parent / "instruction_count.c"
EMULATOR = "qemu-aarch64"
# By this plugin, by QEMU's own insn.c, by others like them.
COUNT = re.compile(r"(?:total insns:|total)\s+(\d+)")


def build_plugin(folder: Path) -> Path:
    """``instruction_count.c`` for this machine."""
    path = folder / "libinstruction_count.so"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{platform.machine()}-linux-gnu.2.17", "-O2"]
    subprocess.run([*command, "-shared", "-fPIC", str(PLUGIN_SOURCE), "-o", str(path)], check=True)
    return path


def count(plugin: Path, program: Sequence[str | Path], options: Sequence[str | Path] = ()) -> int:
    """Instructions executed by one run of ``program``, start-up included.

    Raises:
        ToolError: the emulator is missing, takes no plugins, or the program failed.
    """
    if shutil.which(EMULATOR) is None:
        raise ToolError(f"{EMULATOR} is not installed; on Debian it is in the package qemu-user.")
    command = [EMULATOR, "-d", "plugin", "-plugin", str(plugin), *map(str, options), *map(str, program)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    found = COUNT.findall(result.stderr)
    if result.returncode != 0 or not found:
        lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
        raise ToolError(f"{Path(program[0]).name} failed under {EMULATOR}, or it takes no such plugins: {lines[-1]}")
    return int(found[-1])


def per_call(run: Callable[[int], int], calls: int = 1) -> float:
    """Instructions of one more call: ``run(n)`` counts a run with n of them. The first call of a run is left out."""
    return (run(1 + calls) - run(1)) / calls
