"""Links kernels, plan and C runtime into the binaries of a bundle, with the cross compiler of the ``ziglang`` package.

The runtime is compiled once, for the architecture's baseline processor, into objects that depend on no C library's
layouts; they go into ``libmodel.a``, into ``model.so`` (glibc 2.17 or newer) and into the static ``runner`` (musl).
The very first static link for an architecture makes zig build musl (up to a minute, kept in zig's global cache).

Of networks for a GPU everything is for glibc: a static program cannot load the GPU's driver, which is a shared library.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from bnn_deploy.codegen.device_code import DeviceCode
from bnn_deploy.codegen.gpu_plan_source import generate_gpu_plan_source
from bnn_deploy.codegen.object_cache import NO_CACHE, ObjectCache, content_key
from bnn_deploy.codegen.plan_source import WEIGHTS_ASSEMBLY, bytes_assembly, generate_plan_source
from bnn_deploy.errors import ToolError
from bnn_deploy.plan import ExecutionPlan

RUNTIME_SOURCES = Path(__file__).parent.parent / "runtime"


def _sources(*folders: str) -> tuple[str, ...]:
    """The C sources in folders of the runtime, by their paths in it."""
    paths = [path for folder in folders for path in sorted((RUNTIME_SOURCES / folder).glob("*.c"))]
    return tuple(path.relative_to(RUNTIME_SOURCES).as_posix() for path in paths)


MODEL_SOURCES = _sources("network", "cpu")
GPU_MODEL_SOURCES = _sources("network", "cuda")
SYSTEM_SOURCES = _sources("system")
PROFILE_SOURCES = (*_sources("profile"), *SYSTEM_SOURCES)
# Only in model.so, and so compiled for its C library.
LIBRARY_SOURCES = (*_sources("tvm"), *PROFILE_SOURCES)
RUNNER_SOURCES = (*_sources("runner"), *PROFILE_SOURCES)
PROBE_SOURCES = (*_sources("probe"), *SYSTEM_SOURCES)
PROBE_LIBRARY_SOURCES = ("tvm/call.c", "tvm/system.c", *SYSTEM_SOURCES)
GLIBC = "linux-gnu.2.17"
PROCESSORS = {"x86_64": "x86_64", "arm64": "aarch64"}
# No bundle is for 32-bit Arm, but a probe tells so of such a board. ARMv6 is a Raspberry Pi 1 or Zero.
PROBE_TARGETS = {
    "x86_64": ("-target", "x86_64-linux-musl"),
    "arm64": ("-target", "aarch64-linux-musl"),
    "arm": ("-target", "arm-linux-musleabi", "-mcpu=arm1176jz_s"),
}
COMPILE_OPTIONS = (
    "-std=c11",
    "-O2",
    "-g0",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-D_GNU_SOURCE",
    "-Iruntime",
)

# Variables of TVM's runtime that runtime/cpu/thread_pool.c defines; any other would be a null pointer when called.
PROVIDED_TVM_VARIABLES = {"__TVMBackendParallelLaunch", "__TVMBackendAllocWorkspace", "__TVMBackendFreeWorkspace"}


@dataclass(frozen=True)
class _Kind:
    """What differs between bundles.

    Attributes:
        library: the C library of ``libmodel.a`` and ``runner``, as zig's targets end.
        sources: what runs the plan.
        assembly: sources with the bytes that it runs with.
        runner_options: how ``runner`` is linked.
        libraries: what ``model.so`` and ``runner`` need of the C library besides.
    """

    library: str
    sources: tuple[str, ...]
    assembly: tuple[str, ...]
    runner_options: tuple[str, ...]
    libraries: tuple[str, ...]


_FOR_PROCESSORS = _Kind("linux-musl", MODEL_SOURCES, ("weights.S",), ("-static",), ())
_FOR_GPUS = _Kind(GLIBC, GPU_MODEL_SOURCES, ("weights.S", "cubin.S", "ptx.S"), (), ("-lpthread", "-ldl"))


def link_model(
    folder: Path,
    *,
    kernels_objects: Sequence[Path],
    plan: ExecutionPlan,
    architecture: str,
    device_code: DeviceCode | None = None,
    cache: ObjectCache = NO_CACHE,
) -> None:
    """Write ``model.so``, ``libmodel.a``, ``runner`` and ``bnn_model.h`` into an existing folder.

    Args:
        folder: where the four files go.
        kernels_objects: ELF object files that define the plan's kernels for this architecture, one for each kernel set; none
            with ``device_code``.
        plan: the network.
        architecture: ``"x86_64"`` or ``"arm64"``.
        device_code: the kernels that the plan launches on a GPU.
        cache: keeps the objects of the runtime's sources.

    Raises:
        ToolError: ziglang is missing or failed, or the kernels need a part of TVM's runtime that bundles do not have.
        CompileError: the plan cannot be written as C.
    """
    kind = _FOR_PROCESSORS if device_code is None else _FOR_GPUS
    native, glibc = f"{PROCESSORS[architecture]}-{kind.library}", f"{PROCESSORS[architecture]}-{GLIBC}"
    for path in kernels_objects:
        _check_tvm_variables(path)
    with _work_folder() as work:
        _write_network(work, plan, device_code)
        (work / "exports.map").write_text(_exports([*api_symbols(), *tvm_symbols()]))
        objects = [source.replace(".S", ".o") for source in kind.assembly]
        for number, path in enumerate(kernels_objects):
            objects.append(f"kernels_{number}.o")
            shutil.copyfile(path, work / objects[-1])
        for source in kind.assembly:
            _zig(work, "cc", "-target", native, "-c", source, "-o", source.replace(".S", ".o"))
        objects.append(_compile(work, "plan.c", native, NO_CACHE))
        objects += [_compile(work, f"runtime/{source}", native, cache) for source in kind.sources]
        _zig(work, "ar", "rcsD", "libmodel.a", *objects)
        runner_objects = [_compile(work, f"runtime/{source}", native, cache) for source in RUNNER_SOURCES]
        library_objects = [_compile(work, f"runtime/{source}", glibc, cache, "library_") for source in LIBRARY_SOURCES]
        _zig(
            work,
            *("cc", "-target", glibc, "-shared", "-s", "-o", "model.so", *objects, *library_objects),
            *("-Wl,-soname,model.so", "-Wl,--version-script=exports.map", "-Wl,-z,defs", "-lm", "-lpthread"),
            *kind.libraries,
        )
        # zig keeps a build of musl for -s and another one without it; examples/c/main.c says -s too, to share this one.
        runner_options = ("-target", native, *kind.runner_options, "-s", "-o", "runner")
        _zig(work, "cc", *runner_options, *runner_objects, "libmodel.a", "-lm", *kind.libraries)
        for name in ("model.so", "libmodel.a", "runner"):
            shutil.copyfile(work / name, folder / name)
        shutil.copyfile(RUNTIME_SOURCES / "bnn_model.h", folder / "bnn_model.h")
        for name in ("model.so", "runner"):
            (folder / name).chmod((folder / name).stat().st_mode | 0o111)


@contextmanager
def _work_folder() -> Iterator[Path]:
    """A folder for a while with a copy of the C runtime: zig is told no path of this machine, so none gets into objects."""
    with tempfile.TemporaryDirectory(prefix="bnn-deploy-link-") as temporary:
        work = Path(temporary)
        for source in _runtime_files():
            copy = work / "runtime" / source.relative_to(RUNTIME_SOURCES)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        yield work


def _runtime_files() -> list[Path]:
    return sorted((*RUNTIME_SOURCES.rglob("*.c"), *RUNTIME_SOURCES.rglob("*.h")))


def _compile(work: Path, source: str, target: str, cache: ObjectCache, prefix: str = "") -> str:
    """Compile one source in ``work`` for a target of zig's; the name of the object, which lies there too."""
    result = prefix + source.removeprefix("runtime/").replace("/", "_").removesuffix(".c") + ".o"
    command = ("cc", "-target", target, *COMPILE_OPTIONS, "-c", source, "-o", result)
    cache.get(_runtime_key(command), work / result, partial(_zig, work, *command))
    return result


def _write_network(work: Path, plan: ExecutionPlan, device_code: DeviceCode | None) -> None:
    """The plan as C, and the bytes that belong to it with assembly that includes them."""
    (work / "weights.bin").write_bytes(plan.weights)
    (work / "weights.S").write_text(WEIGHTS_ASSEMBLY, encoding="utf-8")
    if device_code is None:
        (work / "plan.c").write_text(generate_plan_source(plan), encoding="utf-8")
        return
    (work / "plan.c").write_text(generate_gpu_plan_source(plan, device_code), encoding="utf-8")
    (work / "cubin.bin").write_bytes(device_code.cubin)
    (work / "cubin.S").write_text(bytes_assembly("bnn_cubin", "cubin.bin"), encoding="utf-8")
    (work / "ptx.txt").write_text(device_code.ptx, encoding="utf-8")
    (work / "ptx.S").write_text(bytes_assembly("bnn_ptx", "ptx.txt", end="    .byte 0\n"), encoding="utf-8")


def link_probe(folder: Path, architecture: str, cache: ObjectCache = NO_CACHE) -> Path:
    """Write ``probe`` into an existing folder: a static program that prints the state of the system it runs on as JSON.

    Args:
        folder: where it goes.
        architecture: one of ``PROBE_TARGETS``: "x86_64", "arm64" or "arm" (32-bit, ARMv6 or newer).
        cache: keeps the program.

    Raises:
        ToolError: ziglang is missing or failed.
    """
    with _work_folder() as work:
        sources = [f"runtime/{source}" for source in PROBE_SOURCES]
        command = ("cc", *PROBE_TARGETS[architecture], *COMPILE_OPTIONS, "-static", "-s", "-o", "probe", *sources)
        cache.get(_runtime_key(command), work / "probe", partial(_zig, work, *command))
        shutil.copyfile(work / "probe", folder / "probe")
    (folder / "probe").chmod(0o755)
    return folder / "probe"


def link_probe_library(folder: Path, architecture: str, cache: ObjectCache = NO_CACHE) -> Path:
    """Write ``probe.so`` into an existing folder: what ``link_probe`` does, as a function for TVM's RPC server.

    Args:
        folder: where it goes.
        architecture: "x86_64" or "arm64".
        cache: keeps the library.

    Raises:
        ToolError: ziglang is missing or failed.
    """
    glibc = f"{PROCESSORS[architecture]}-{GLIBC}"
    with _work_folder() as work:
        (work / "exports.map").write_text(_exports(["__tvm_ffi_bnn_system_state"]))
        sources = [f"runtime/{source}" for source in PROBE_LIBRARY_SOURCES]
        command = (
            *("cc", "-target", glibc, *COMPILE_OPTIONS, "-shared", "-s", "-o", "probe.so", *sources),
            *("-Wl,-soname,probe.so", "-Wl,--version-script=exports.map", "-Wl,-z,defs"),
        )
        cache.get(_runtime_key(command), work / "probe.so", partial(_zig, work, *command))
        shutil.copyfile(work / "probe.so", folder / "probe.so")
    return folder / "probe.so"


def api_symbols() -> list[str]:
    """The functions that bnn_model.h declares."""
    header = (RUNTIME_SOURCES / "bnn_model.h").read_text(encoding="utf-8")
    return re.findall(r"^BNN_API [^(]*?(bnn_\w+)\(", header, flags=re.MULTILINE)


def tvm_symbols() -> list[str]:
    """The functions that TVM's RPC server finds in ``model.so``, the only other ones that it exports."""
    sources = [(RUNTIME_SOURCES / name).read_text(encoding="utf-8") for name in _sources("tvm")]
    names = re.findall(r"^TVM_FUNCTION\((\w+)\) {", "\n".join(sources), flags=re.MULTILINE)
    return [f"__tvm_ffi_{name}" for name in names]


def _exports(symbols: list[str]) -> str:
    return f"{{ global: {' '.join(f'{name};' for name in symbols)} local: *; }};\n"


def _runtime_key(command: tuple[str, ...]) -> str:
    """A digest of what ``command`` makes an object of the runtime from."""
    names = [
        part
        for path in _runtime_files()
        for part in (path.relative_to(RUNTIME_SOURCES).as_posix().encode(), path.read_bytes())
    ]
    return content_key(("runtime", version("ziglang"), *command, *names))


def _check_tvm_variables(kernels_object: Path) -> None:
    found = {name.decode() for name in re.findall(rb"(__TVM\w+)\0", kernels_object.read_bytes())}
    missing = sorted(found - PROVIDED_TVM_VARIABLES)
    if missing:
        raise ToolError(
            f"The kernels need {', '.join(missing)} of TVM's runtime, which a bundle does not contain; "
            "build them without packed-function interfaces, assertions and barriers."
        )


def _zig(work: Path, *arguments: str) -> None:
    """Run ``python -m ziglang`` in a folder; paths in arguments are relative to it."""
    if importlib.util.find_spec("ziglang") is None:
        raise ToolError(
            "The linker is missing: the Python package ziglang is not installed here; run `pip install ziglang`."
        )
    # The local cache would only grow: each link has new sources. The global one keeps the C libraries.
    environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(work / "zig-cache")}
    result = subprocess.run(
        [sys.executable, "-m", "ziglang", *arguments],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if result.returncode != 0:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        message = " | ".join(lines[-6:]) or f"exit status {result.returncode}"
        raise ToolError(f"Linking failed in `zig {' '.join(arguments[:3])} …`: {message}")
