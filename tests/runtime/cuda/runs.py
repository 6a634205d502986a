"""Runs of the runner with the fake driver, and what that driver noted of them."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import numpy as np

NOTHING_LEFT = "left: 0 memory 0 streams 0 events 0 graphs 0 executables 0 modules 0 contexts"


def run_runner(
    runner: Path, folder: Path, array: np.ndarray, environment: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    """Run it on an array, to ``y.npy`` without other options."""
    np.save(folder / "x.npy", array)
    command = [str(runner), "--input", "x.npy", *(options or ("--output", "y.npy"))]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def log_of(folder: Path) -> Counter[str]:
    """How often each line is in the driver's log."""
    return Counter((folder / "log").read_text().splitlines())
