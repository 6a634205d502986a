"""Stop before pip downloads gigabytes of CUDA libraries with torch, and say how to get the CPU build instead.

Run by the Makefile inside the new environment, before anything is installed: `python check_torch_build.py CONSTRAINTS`.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

MESSAGE = """\
pip would install {count} CUDA packages with torch (several GB). bnn-deploy needs PyTorch's CPU build only. Either
  - give pip PyTorch's CPU wheel index (PyTorch's installation page shows its address under "CPU"):
        PIP_EXTRA_INDEX_URL=<that address> make {goal}
  - or accept the CUDA build:
        make {goal} TORCH=cuda
"""


def main(constraints: str, goal: str) -> int:
    """0 when torch is installed already or comes without CUDA; 2 with an explanation otherwise."""
    if importlib.util.find_spec("torch") is not None:
        return 0
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--quiet",
        "--report",
        "-",
        "-c",
        constraints,
        "torch",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.stderr.write(result.stderr)
        return 2
    names = [item["metadata"]["name"] for item in json.loads(result.stdout)["install"]]
    cuda = [name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))]
    if cuda:
        sys.stderr.write(MESSAGE.format(count=len(cuda), goal=goal))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
