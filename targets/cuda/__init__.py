"""NVIDIA GPUs: presets by the name of a board, and ``cuda`` for any GPU by its architecture."""

from __future__ import annotations

import re

from bnn_deploy.errors import TargetError
from bnn_deploy.targets.base import Gpu, Target
from bnn_deploy.targets.cuda.architectures import architecture

CUDA = "cuda"


def _gpu_target(name: str, description: str, host: str, sm: int) -> Target:
    """The processor only starts the GPU's work, in C that any processor of its architecture runs."""
    return Target(
        name,
        description,
        architecture=host,
        mcpu={"arm64": "generic", "x86_64": "x86-64"}[host],
        required_cpu_flags={"arm64": ("asimd",), "x86_64": ()}[host],
        binary_macs_per_cycle=architecture(sm).binary_macs_per_clock,
        gpu=Gpu(sm),
    )


CUDA_TARGETS = (
    _gpu_target("jetson-nano", "GPU of the Jetson Nano and TX1 (Maxwell)", "arm64", 53),
    _gpu_target("jetson-xavier", "GPU of the Jetson Xavier family (Volta)", "arm64", 72),
    _gpu_target("orin", "GPU of the Jetson Orin family (Ampere)", "arm64", 87),
    _gpu_target("h200", "NVIDIA H100 and H200 (Hopper)", "x86_64", 90),
)


def cuda_target(arch: str) -> Target:
    """The target of a GPU in an x86-64 machine, by NVIDIA's name of its architecture: "sm_86" gives "cuda-sm_86".

    Raises:
        TargetError: ``arch`` is no such name, or there are no kernels for it.
    """
    number = re.fullmatch(r"sm_(\d+)", arch)
    if number is None:
        raise TargetError(f"{arch!r} is no GPU architecture: expected sm_ and its number, such as sm_87.")
    sm = architecture(int(number[1])).sm
    return _gpu_target(f"{CUDA}-sm_{sm}", f"any GPU with sm_{sm} in an x86-64 machine", "x86_64", sm)
