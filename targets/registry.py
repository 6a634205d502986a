"""The targets by name, and the one that this machine is."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from bnn_deploy.errors import TargetError
from bnn_deploy.targets.arm64 import ARM64_TARGETS
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.cuda import CUDA, CUDA_TARGETS, cuda_target
from bnn_deploy.targets.cuda.local_gpu import local_gpu
from bnn_deploy.targets.x86_64 import X86_64_TARGETS

HOST = "host"
CPU_INFORMATION = Path("/proc/cpuinfo")


def all_targets() -> tuple[Target, ...]:
    """Every concrete target: neither ``host``, nor what ``cuda`` makes of an architecture."""
    return (*cpu_targets(), *CUDA_TARGETS)


def cpu_targets() -> tuple[Target, ...]:
    """Every concrete target whose kernels run on the processor."""
    return (*X86_64_TARGETS, *ARM64_TARGETS)


def get_target(name: str, arch: str | None = None) -> Target:
    """The target called ``name``.

    Args:
        name: of a concrete target, or ``host``: the best one that this machine's processor can run, or ``cuda``: a GPU by its
            architecture. The name of the target that ``cuda`` gives, such as "cuda-sm_86", is one, too.
        arch: with ``cuda``, the architecture, such as "sm_86"; that of this machine's GPU by default.

    Raises:
        TargetError: there is no such target, this machine is no target, or it has no GPU to take the architecture from.
    """
    if name == CUDA:
        return cuda_target(arch or _local_arch())
    if arch is not None:
        raise TargetError(f"--arch {arch} goes with --target {CUDA} only: {name} has its own architecture.")
    if name == HOST:
        return host_target()
    if name.startswith(f"{CUDA}-"):
        return cuda_target(name.removeprefix(f"{CUDA}-"))
    targets = {target.name: target for target in all_targets()}
    if name not in targets:
        names = [HOST, *targets, CUDA]
        similar = get_close_matches(name, names, n=2)
        suggestion = f" Did you mean {' or '.join(similar)}?" if similar else ""
        raise TargetError(f"Unknown target {name!r}.{suggestion} Targets: {', '.join(names)}.")
    return targets[name]


def _local_arch() -> str:
    try:
        return f"sm_{local_gpu().sm}"
    except TargetError as error:
        raise TargetError(f"--target {CUDA} needs --arch, such as --arch sm_86: {error}.") from error


def host_cpu_flags(cpu_information: Path = CPU_INFORMATION) -> frozenset[str]:
    """Names of the instruction sets of this machine, as Linux prints them; empty when it does not say."""
    try:
        lines = cpu_information.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    fields = (line.partition(":") for line in lines)
    return next(
        (frozenset(flags.split()) for key, _, flags in fields if key.strip() in ("flags", "Features")), frozenset()
    )


def missing_cpu_flags(target: Target, cpu_information: Path = CPU_INFORMATION) -> tuple[str, ...]:
    """What this machine lacks to run code for ``target``; empty when it can run it."""
    flags = host_cpu_flags(cpu_information)
    return tuple(flag for flag in target.required_cpu_flags if flag not in flags)


def host_target(cpu_information: Path = CPU_INFORMATION) -> Target:
    """The best target that this machine can run.

    Raises:
        TargetError: the processor is older than every target, or not x86-64 or arm64.
    """
    # Presets for boards are left out: they differ from generic arm64 in scheduling, which nothing here measures.
    candidates = (*reversed(X86_64_TARGETS), *(target for target in ARM64_TARGETS if target.name == "arm64"))
    for target in candidates:
        if not missing_cpu_flags(target, cpu_information):
            return target
    lacking = ", ".join(
        f"{target.name} lacks {' '.join(missing_cpu_flags(target, cpu_information))}" for target in candidates
    )
    raise TargetError(f"This processor is none of the targets ({lacking}); compile for another machine with --target.")
