"""NVIDIA's compiler nvcc, where a CUDA toolkit is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnn_deploy.codegen.cuda_nvrtc import compile_error

_USUAL_PLACE = Path("/usr/local/cuda/bin/nvcc")


@dataclass(frozen=True)
class Nvcc:
    """The compiler; attributes as of ``cuda_nvrtc.Nvrtc``."""

    program: Path
    toolkit: str
    identity: str
    sms: tuple[int, ...]

    def compile(self, source: str, sm: int, options: Sequence[str]) -> tuple[bytes, str]:
        """Cubin and PTX of a source.

        Raises:
            CompileError: nvcc refuses the source, with its first error.
        """
        with tempfile.TemporaryDirectory(prefix="bnn-deploy-") as folder:
            # The name of the source is in the code: the same one every time.
            Path(folder, "kernels.cu").write_text(source, encoding="utf-8")
            for form in ("cubin", "ptx"):
                arguments = [f"-arch=sm_{sm}", f"-{form}", *options, "-o", f"kernels.{form}", "kernels.cu"]
                done = subprocess.run(
                    [self.program, *arguments], cwd=folder, capture_output=True, text=True, errors="replace"
                )
                if done.returncode != 0:
                    raise compile_error(f"nvcc {self.toolkit}", sm, done.stderr)
            return Path(folder, "kernels.cubin").read_bytes(), Path(folder, "kernels.ptx").read_text(encoding="utf-8")


def find_nvcc() -> Nvcc | None:
    """The nvcc of ``PATH`` or of /usr/local/cuda; None without one that runs."""
    found = shutil.which("nvcc") or (str(_USUAL_PLACE) if _USUAL_PLACE.exists() else None)
    if found is None:
        return None
    stated = _output(found, "--version")
    release = re.search(r"release (\d+\.\d+), (V[\d.]+)", stated)
    sms = tuple(int(number) for number in re.findall(r"^sm_(\d+)$", _output(found, "--list-gpu-code"), re.MULTILINE))
    return Nvcc(Path(found), release[1], f"nvcc {release[2]}", sms) if release else None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
