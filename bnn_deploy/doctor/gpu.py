"""A board's NVIDIA GPU: which one it is, what its driver can load, and whether a bundle's kernels run there."""

from __future__ import annotations

import re

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.doctor.check import Check, Status
from bnn_deploy.doctor.jetson import is_jetson
from bnn_deploy.runtime.processor import MACHINES
from bnn_deploy.targets.cuda import CUDA, CUDA_TARGETS
from bnn_deploy.targets.cuda.architectures import ARCHITECTURES

# Compute capability times ten by words of the name in the device tree, newest first, because "Orin Nano" is no Nano:
# https://developer.nvidia.com/cuda-gpus, and for the oldest https://developer.nvidia.com/cuda-legacy-gpus
_JETSONS = (
    ("orin", 87),
    ("xavier", 72),
    ("jetson-agx", 72),  # what the AGX Xavier's own device tree says
    ("tx2", 62),
    ("quill", 62),  # the TX2's developer kit
    ("tx1", 53),
    ("nano", 53),
)
# The CUDA of Jetson Linux, which decides, whatever toolkit is installed: https://developer.nvidia.com/embedded/jetpack-archive
_CUDA_OF_JETSON_LINUX = {
    **{(32, 1): (10, 0), (32, 4): (10, 2), (34, 1): (11, 4)},
    **{(36, 2): (12, 2), (36, 4): (12, 6), (38, 0): (13, 0)},
}
# The CUDA of the other drivers: "CUDA Toolkit and Corresponding Driver Versions" in the release notes of CUDA.
_CUDA_OF_DRIVER = {
    (440, 33): (10, 2),
    **{(450, 36): (11, 0), (455, 23): (11, 1), (460, 27): (11, 2), (465, 19): (11, 3), (470, 42): (11, 4)},
    **{(495, 29): (11, 5), (510, 39): (11, 6), (515, 43): (11, 7), (520, 61): (11, 8)},
    **{(525, 60): (12, 0), (530, 30): (12, 1), (535, 54): (12, 2), (545, 23): (12, 3), (550, 54): (12, 4)},
    **{(555, 42): (12, 5), (560, 28): (12, 6), (570, 26): (12, 8), (575, 51): (12, 9), (580, 65): (13, 0)},
}


def has_gpu(state: SystemState) -> bool:
    """There is a driver, or it is a Jetson."""
    return state.gpu_driver is not None or is_jetson(state)


def gpu_sm(state: SystemState) -> int | None:
    """Compute capability times ten; None if the board does not tell."""
    stated = re.fullmatch(r"(\d+)\.(\d)", state.gpu_compute_capability or "")
    if stated is not None:
        return 10 * int(stated[1]) + int(stated[2])
    name = (state.board or "").lower()
    return next((sm for word, sm in _JETSONS if word in name), None) if is_jetson(state) else None


def driver_cuda(state: SystemState) -> tuple[int, int] | None:
    """The CUDA that the driver supports, or a somewhat older one; None if the board does not tell."""
    release = re.match(r"R(\d+)\.(\d+)", state.jetson_linux or "")
    driver = re.match(r"(\d+)\.(\d+)", state.gpu_driver or "")
    stated, versions = (release, _CUDA_OF_JETSON_LINUX) if is_jetson(state) else (driver, _CUDA_OF_DRIVER)
    if stated is None:
        return None
    found = (int(stated[1]), int(stated[2]))
    return next((cuda for first, cuda in reversed(versions.items()) if found >= first), None)


def gpu_target(state: SystemState) -> str | None:
    """What to give to ``--target`` for the board's GPU; None if it is not known or there is nothing for it."""
    sm = gpu_sm(state)
    architecture = MACHINES.get(state.machine.lower())
    for target in CUDA_TARGETS:
        if target.gpu is not None and target.gpu.sm == sm and target.architecture == architecture:
            return target.name
    known = architecture == "x86_64" and sm in {row.sm for row in ARCHITECTURES}
    return f"{CUDA} --arch sm_{sm}" if known else None


def check_gpu(state: SystemState) -> list[Check]:
    """A row for a board with a GPU; none for others."""
    if not has_gpu(state) or (state.emulated and not is_jetson(state)):
        return []
    sm, cuda, target = gpu_sm(state), driver_cuda(state), gpu_target(state)
    words = [
        *([state.gpu_name] if state.gpu_name else []),
        "of unknown architecture" if sm is None else f"sm_{sm}",
        *([f"driver {state.gpu_driver}"] if state.gpu_driver else []),
        "unknown CUDA" if cuda is None else f"CUDA {_text(cuda)}",
        *([f"{state.gpu_memory_bytes / 1e9:.1f} GB"] if state.gpu_memory_bytes else []),
    ]
    if target is not None:
        return [Check("GPU", Status.OK, f"{', '.join(words)}: compile with --target {target}")]
    advice = "`bnn-deploy targets` lists the GPUs that there are kernels for; networks run on the processor as well."
    return [Check("GPU", Status.OK, ", ".join(words), advice)]


def check_gpu_bundle(state: SystemState, bundle: Bundle) -> Check:
    """Does a bundle for GPUs, whose processor is right, find a GPU and a driver that run its kernels?

    Of the bundle's two forms, machine code runs on GPUs of the same major compute capability and at least the same minor one;
    the text, PTX, on all that are not older, once the driver has translated it.
    """
    needs = bundle.gpu
    if needs is None:
        raise ValueError(f"{bundle.path} is no bundle for a GPU")
    wanted = int(needs["compute_capability"].replace(".", ""))
    oldest, oldest_ptx = _version(needs["needs_cuda"]), _version(needs["needs_cuda_ptx"])
    found = f"target {bundle.target}, sm_{wanted}"
    if not has_gpu(state):
        advice = (
            f"Install NVIDIA's driver, of CUDA {_text(min(oldest, oldest_ptx))} or newer, or compile for the processor."
        )
        return Check("bundle", Status.ERROR, f"{found}; no NVIDIA driver found", advice)
    sm, cuda, target = gpu_sm(state), driver_cuda(state), gpu_target(state)
    again = f"compile the model with --target {target}" if target else "compile the model for the processor"
    if sm is not None and sm < wanted:
        return Check("bundle", Status.ERROR, found, f"This GPU is sm_{sm}, older than the bundle's: {again}.")
    if cuda is not None and cuda < min(oldest, oldest_ptx):
        advice = (
            f"The driver supports CUDA {_text(cuda)}: install one of CUDA {_text(min(oldest, oldest_ptx))} or newer."
        )
        return Check("bundle", Status.ERROR, found, advice)
    if sm is None or cuda is None:
        unknown = " and ".join(
            [*(["the GPU's architecture"] if sm is None else []), *(["CUDA"] if cuda is None else [])]
        )
        return Check("bundle", Status.OK, f"{found}, needs CUDA {_text(oldest)}; {unknown} unknown")
    if sm // 10 == wanted // 10 and cuda >= oldest:
        return Check("bundle", Status.OK, f"{found}, runs")
    if cuda < oldest_ptx:
        advice = (
            f"The driver supports CUDA {_text(cuda)}: install one of CUDA {_text(oldest_ptx)} or newer, or {again}."
        )
        return Check("bundle", Status.ERROR, found, advice)
    found += ", runs once the driver has translated its PTX, at the first start"
    if sm == wanted:
        return Check("bundle", Status.OK, found)
    return Check("bundle", Status.WARNING, found, f"To suit this GPU better, {again}.")


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
