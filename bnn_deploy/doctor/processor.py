"""A board's processor: has it the instructions, and which targets suit its cores."""

from __future__ import annotations

from collections import Counter

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.arm_cores import ArmCore, arm_core
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.doctor.check import Check, Status
from bnn_deploy.doctor.gpu import check_gpu_bundle, gpu_target
from bnn_deploy.runtime.processor import MACHINES
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.registry import cpu_targets

# The target that is right on every arm64 board, if not tuned for one.
ANY_ARM64 = "arm64"
# The kernel set for boards without any out-of-order core.
IN_ORDER = "in-order"


def check_instructions(state: SystemState) -> Check:
    """SIMD instructions: without them no target fits."""
    if not state.cpu_flags:
        return Check("instructions", Status.OK, "unknown: /proc/cpuinfo does not say")
    if architecture(state) == "arm64":
        if "asimd" not in state.cpu_flags:
            advice = "Use another board: every target needs NEON, and no 64-bit Arm core of a board lacks it."
            return Check("instructions", Status.ERROR, "no NEON (asimd)", advice)
        dot = "dot products" if "asimddp" in state.cpu_flags else "no dot products (not needed)"
        return Check("instructions", Status.OK, f"NEON, {dot}")
    if not runnable_targets(state):
        oldest = next(target for target in cpu_targets() if target.architecture == architecture(state))
        missing = ", ".join(sorted(set(oldest.required_cpu_flags) - set(state.cpu_flags)))
        advice = f"Use another machine: {oldest.name} is the oldest that can be compiled for."
        return Check("instructions", Status.ERROR, f"no {missing}", advice)
    return Check("instructions", Status.OK, "AVX2, AVX-512" if "avx512f" in state.cpu_flags else "AVX2")


def check_target(state: SystemState) -> Check:
    """What to compile for."""
    suited = suited_targets(state)
    cores = core_names(state)
    found = cores if cores else "unknown cores"
    if not suited:
        return Check("target", Status.WARNING, found, "`bnn-deploy targets` lists what can be compiled for.")
    return Check("target", Status.OK, f"{found}: compile with --target {' or '.join(suited)}")


def check_bundle(state: SystemState, bundle: Bundle) -> Check:
    """Does the board run this bundle, with which kernels, and would another target suit it better?"""
    found = f"target {bundle.target}, {bundle.architecture}"
    if architecture(state) is None:
        return Check(
            "bundle", Status.ERROR, found, f"There is no target for {state.machine}: use another system or board."
        )
    suited = suited_targets(state)
    if bundle.gpu is not None:
        suited = [target] if (target := gpu_target(state)) else suited
    compile_again = f"compile the model with --target {' or '.join(suited)}" if suited else "use another board"
    if bundle.architecture != architecture(state):
        return Check("bundle", Status.ERROR, found, f"This board is {state.machine}: {compile_again}.")
    missing = bundle.missing_cpu_flags(state.cpu_flags)
    if missing and state.cpu_flags:
        advice = f"This processor lacks {', '.join(missing)}: {compile_again}."
        return Check("bundle", Status.ERROR, found, advice)
    if missing:
        return Check("bundle", Status.OK, f"{found}; whether the processor has {', '.join(missing)} is unknown")
    if bundle.gpu is not None:
        return check_gpu_bundle(state, bundle)
    kernels = fitting_kernel_set(state, bundle)
    found += f", runs with its {kernels} kernels" if kernels else ", runs"
    if suited and suited != [ANY_ARM64] and bundle.target not in suited:
        return Check("bundle", Status.WARNING, found, f"To suit this board better, {compile_again}.")
    return Check("bundle", Status.OK, found)


def architecture(state: SystemState) -> str | None:
    """``"x86_64"``, ``"arm64"`` or None."""
    return MACHINES.get(state.machine.lower())


def runnable_targets(state: SystemState) -> list[Target]:
    """The targets whose instructions the processor has, oldest first; all of its architecture if it does not say."""
    flags = set(state.cpu_flags)
    return [
        target
        for target in cpu_targets()
        if target.architecture == architecture(state) and (not flags or flags.issuperset(target.required_cpu_flags))
    ]


def suited_targets(state: SystemState) -> list[str]:
    """Names of the targets to recommend, best known first: any arm64 one and that of the core, or the newest of x86-64."""
    targets = runnable_targets(state)
    if architecture(state) != "arm64":
        return [targets[-1].name] if targets and state.cpu_flags else []
    core = leading_core(state)
    return [
        target.name
        for target in targets
        if target.name == ANY_ARM64 or (core is not None and target.mcpu == core.name.lower())
    ]


def fitting_kernel_set(state: SystemState, bundle: Bundle) -> str:
    """The kernel set that the bundle's runtime will choose there (runtime/cpu/kernel_set.c), "" if it has one set only."""
    told = [arm_core(cpu.implementer, cpu.part) for cpu in state.processors if None not in (cpu.implementer, cpu.part)]
    # As there, a part number that no table has is no in-order core's.
    if IN_ORDER in bundle.kernel_sets and told and all(core is not None and core.in_order for core in told):
        return IN_ORDER
    return bundle.kernel_sets[0]


def core_names(state: SystemState) -> str:
    """The cores in words, such as "4 x Cortex-A55, 4 x Cortex-A76"; how many processors, where they have no names."""
    if architecture(state) != "arm64":
        return f"{len(state.processors)} processors"
    counts = Counter(core.name if core else "unknown core" for core in _cores(state))
    return ", ".join(f"{count} x {name}" for name, count in counts.items())


def leading_core(state: SystemState) -> ArmCore | None:
    """The core that code should be made for: of big and little ones the out-of-order one, as the runtime chooses too."""
    known = [core for core in _cores(state) if core is not None]
    return next((core for core in known if not core.in_order), known[0] if known else None)


def _cores(state: SystemState) -> list[ArmCore | None]:
    return [arm_core(processor.implementer, processor.part) for processor in state.processors]
