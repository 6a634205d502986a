"""Checks of this machine: can bnn-deploy compile, link, run and emulate here, and what to do where it cannot."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from bnn_deploy.doctor.check import Check, Status
from bnn_deploy.doctor.report import BoardChecks, DoctorReport
from bnn_deploy.errors import BnnDeployError, TargetError
from bnn_deploy.progress import ReportProgress, quiet

# The first link for a target builds zig's C library: over a minute on a slow machine, under a second afterwards.
LINK_TIMEOUT_SECONDS = 900
RUN_TIMEOUT_SECONDS = 60
PACKAGES = ("numpy", "click", "onnx", "onnxruntime", "onnxscript", "safetensors", "apache-tvm", "torch", "ziglang")
WANTED_DISK_BYTES = 2 * 10**9  # torch and TVM take 1.5 GB, zig's cache 0.2 GB
WANTED_MEMORY_BYTES = 2 * 10**9  # compiling BiMLP-M and running PyTorch beside it
HELLO_PROGRAM = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'


def examine_this_machine(progress: ReportProgress = quiet) -> DoctorReport:
    """Make every check; compiles and runs two tiny programs, so it takes from two seconds to two minutes."""
    progress("packages")
    checks = [check_python(), *check_packages(), check_host_target()]
    with tempfile.TemporaryDirectory(prefix="bnn-deploy-doctor-") as folder:
        source = Path(folder) / "hello.c"
        source.write_text(HELLO_PROGRAM)
        progress("linking a program for this machine (the first time takes a minute)")
        checks.append(check_link("this machine", source, Path(folder) / "hello-host", []))
        progress("linking a static arm64 program (the first time takes a minute)")
        arm_program = Path(folder) / "hello-arm64"
        checks.append(check_link("arm64", source, arm_program, ["-target", "aarch64-linux-musl", "-static"]))
        progress("qemu-aarch64")
        checks.append(check_emulator(arm_program))
    checks += [*check_gpu(), check_ssh(), check_disk(Path.cwd()), check_memory()]
    return DoctorReport(None, (BoardChecks(platform.node(), tuple(checks)),))


def check_python() -> Check:
    """Version and platform of the interpreter."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < (3, 10):  # noqa: UP036 - an older Python can be running a checkout
        return Check("python", Status.ERROR, found, "Install Python 3.10 or newer.")
    if platform.system() != "Linux":
        return Check("python", Status.WARNING, found, "Use Linux: bundles are Linux programs and run on nothing else.")
    return Check("python", Status.OK, found)


def check_packages() -> list[Check]:
    """Installed version of every package that bnn-deploy depends on; they are not imported."""
    return [_check_package(name) for name in PACKAGES]


def _check_package(name: str) -> Check:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, Status.ERROR, "not installed", f"Run: python -m pip install {name}")
    if name == "torch" and "+cpu" not in version:
        advice = (
            "Nothing needs to be done; torch's CPU build is enough and gigabytes smaller "
            '(PyTorch\'s installation page shows the pip command under "CPU").'
        )
        return Check(name, Status.OK, f"{version} (not the CPU build)", advice)
    return Check(name, Status.OK, version)


def check_host_target() -> Check:
    """The compilation target that this machine's processor can run."""
    try:
        from bnn_deploy.targets.registry import host_target

        target = host_target()
    except ImportError as error:
        return Check("host target", Status.ERROR, str(error), "Install the missing package.")
    except TargetError as error:
        return Check("host target", Status.WARNING, platform.machine(), str(error))
    return Check("host target", Status.OK, f"{target.name}: {target.description}")


def check_link(machine: str, source: Path, program: Path, options: list[str]) -> Check:
    """Compile a one-line C program with ziglang, the linker of every bundle."""
    name = f"linker for {machine}"
    # With -s and away from where zig is installed, as bundles are linked: otherwise zig builds another C library than theirs.
    command = [sys.executable, "-m", "ziglang", "cc", *options, "-s", str(source), "-o", str(program)]
    failure = _run(command, LINK_TIMEOUT_SECONDS, source.parent)[1]
    if failure:
        advice = "Reinstall it (pip install --force-reinstall ziglang); its cache in ~/.cache/zig must be writable."
        return Check(name, Status.ERROR, failure, advice)
    return Check(name, Status.OK, "compiles and links")


def check_emulator(program: Path) -> Check:
    """Run a static arm64 program under qemu-aarch64 (``program`` may be missing if linking failed)."""
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if emulator is None:
        advice = "To run arm64 bundles here (--device qemu), install qemu's user mode: apt install qemu-user"
        return Check("qemu-aarch64", Status.WARNING, "not found", advice)
    if not program.is_file():
        return Check("qemu-aarch64", Status.WARNING, f"{emulator}, not tried", "First make the linker for arm64 work.")
    output, failure = _run([emulator, str(program)], RUN_TIMEOUT_SECONDS)
    if failure or output != "hello\n":
        advice = (
            "Reinstall qemu's user mode (apt install --reinstall qemu-user); --device qemu does not work until then."
        )
        return Check("qemu-aarch64", Status.WARNING, f"{emulator}: {failure or 'wrong output'}", advice)
    return Check("qemu-aarch64", Status.OK, f"{emulator} runs a static arm64 program")


def check_gpu() -> list[Check]:
    """The compiler for GPUs, and this machine's own GPU; neither is needed for anything else."""
    try:
        from bnn_deploy.codegen.cuda_compiler import compilers

        found = ", ".join(compiler.identity for compiler in compilers())
        advice = "" if found else "To compile for GPUs: pip install 'bnn-deploy[cuda]'"
        compiler = Check("GPU compiler", Status.OK, found or "none", advice)
    except (BnnDeployError, ImportError) as error:
        compiler = Check("GPU compiler", Status.WARNING, "broken", str(error))
    from bnn_deploy.targets.cuda.local_gpu import local_gpu

    try:
        gpu = local_gpu()
    except TargetError as error:
        return [compiler, Check("GPU", Status.OK, f"none: {error}")]
    major, minor = gpu.cuda
    return [
        compiler,
        Check("GPU", Status.OK, f"{gpu.name}, sm_{gpu.sm}, CUDA {major}.{minor}, {gpu.memory_bytes / 1e9:.1f} GB"),
    ]


def check_ssh() -> Check:
    """OpenSSH's client, which reaches the boards of --device ssh://…"""
    client = shutil.which("ssh")
    if client is None:
        advice = "To reach boards (--device ssh://…), install OpenSSH's client: apt install openssh-client"
        return Check("ssh", Status.WARNING, "not found", advice)
    return Check("ssh", Status.OK, client)


def check_disk(folder: Path) -> Check:
    """Free space where bundles would be written."""
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder}"
    if free < WANTED_DISK_BYTES:
        return Check(
            "disk", Status.WARNING, found, f"Free some space: {WANTED_DISK_BYTES / 1e9:.0f} GB is comfortable."
        )
    return Check("disk", Status.OK, found)


def check_memory() -> Check:
    """Memory that programs can still get (Linux's MemAvailable)."""
    available = _available_memory()
    if available is None:
        return Check("memory", Status.OK, "unknown on this system")
    found = f"{available / 1e9:.1f} GB available"
    if available < WANTED_MEMORY_BYTES:
        advice = f"Close other programs: compiling the large models wants {WANTED_MEMORY_BYTES / 1e9:.0f} GB."
        return Check("memory", Status.WARNING, found, advice)
    return Check("memory", Status.OK, found)


def _available_memory(path: Path = Path("/proc/meminfo")) -> int | None:
    try:
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _run(command: list[str], timeout: int, folder: Path | None = None) -> tuple[str, str]:
    """(stdout, "") on success, ("", the reason in one line) on failure; ``folder`` is where the command is run."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=timeout)
    except subprocess.TimeoutExpired:
        return "", f"no answer after {timeout} s"
    except OSError as error:
        return "", str(error)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        return "", lines[-1][:200] if lines else f"exit code {done.returncode}"
    return done.stdout, ""
