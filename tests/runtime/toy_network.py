"""A small network made of C kernels: what the runtime, bundle and device tests run, without TVM.

y = (x * scale) @ weight.T + bias for x float32 (2, 48) and y (2, 40). Weights and inputs are small whole numbers, so
every sum is exact in float32 in any order and all ways of running it must agree bit for bit.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.writing import write_bundle
from bnn_deploy.codegen.linker import MODEL_SOURCES, RUNNER_SOURCES, RUNTIME_SOURCES
from bnn_deploy.codegen.object_cache import ObjectCache, cache_folder
from bnn_deploy.codegen.plan_source import WEIGHTS_ASSEMBLY, generate_plan_source
from bnn_deploy.plan import Argument, ExecutionPlan, Space, Step, TensorSpecification
from bnn_deploy.targets.base import Target

BATCH, INPUTS, HIDDEN = 2, 48, 40
HOST = Target("toy-host", "baseline x86-64", "x86_64", "x86-64", required_cpu_flags=("sse2",))
ARM = Target("toy-arm", "baseline ARMv8-A", "arm64", "generic", required_cpu_flags=("asimd",))
AWKWARD_LAYER = 'head "é" */ ??/ \\ %s'


def constants(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """scale (48,), weight (40, 48) and bias (40,), float32 whole numbers."""
    generator = np.random.default_rng(seed)
    shapes = ((INPUTS,), (HIDDEN, INPUTS), (HIDDEN,))
    scale, weight, bias = (generator.integers(-4, 5, shape).astype(np.float32) for shape in shapes)
    return scale, weight, bias


def toy_input(rows: int = BATCH, seed: int = 1) -> np.ndarray:
    """float32 (rows, 48) of whole numbers."""
    return np.random.default_rng(seed).integers(-8, 9, (rows, INPUTS)).astype(np.float32)


def reference(array: np.ndarray, seed: int = 0) -> np.ndarray:
    """What the network of ``toy_plan(seed)`` gives, by numpy."""
    scale, weight, bias = constants(seed)
    return (array * scale) @ weight.T + bias


def toy_plan(seed: int = 0) -> ExecutionPlan:
    """The network as an execution plan."""
    places, weights = [], b""
    for constant in constants(seed):
        places.append(Argument(Space.WEIGHTS, len(weights)))
        weights += constant.tobytes() + b"\0" * (-constant.nbytes % 64)
    source, result = Argument(Space.INPUT, 0), Argument(Space.OUTPUT, 0)
    scaled, hidden = Argument(Space.ARENA, 0), Argument(Space.ARENA, 384)
    steps = (
        Step("toy_check", "stem.check", "pack", (source,)),
        Step("toy_scale", "stem.scale", "float", (source, places[0], scaled)),
        Step(
            "toy_matmul", "body.0 + body.1", "binary", (scaled, places[1], hidden), binary_macs=BATCH * INPUTS * HIDDEN
        ),
        Step("toy_add", AWKWARD_LAYER, "float", (hidden, places[2], result)),
    )
    inputs = (TensorSpecification("image", (BATCH, INPUTS)),)
    outputs = (TensorSpecification("logits", (BATCH, HIDDEN)),)
    return ExecutionPlan(steps, inputs, outputs, weights, arena_bytes=384 + 320)


def zig(*arguments: str | Path) -> None:
    """Run ``python -m ziglang``; fails with its message. Paths in arguments are absolute."""
    command = [sys.executable, "-m", "ziglang", *map(str, arguments)]
    # Started above its own files, zig takes them for others, and builds its C libraries once more.
    result = subprocess.run(command, cwd=tempfile.gettempdir(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def compile_kernels(folder: Path, architecture: str) -> Path:
    """The kernels as an object file for an architecture."""
    target = {"x86_64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[architecture]
    path = folder / f"kernels-{architecture}.o"
    source = Path(__file__).parent / "toy_kernels.c"
    zig("cc", "-target", target, "-O2", "-fPIC", "-Wall", "-Wextra", "-c", source, "-o", path)
    return path


def toy_bundle(folder: Path, target: Target, seed: int = 0, cache: ObjectCache | None = None) -> Bundle:
    """Build the network's bundle into a folder; the runtime's objects are those of the test run's cache, or of another."""
    kernels = compile_kernels(folder, target.architecture)
    info = {"model": {"bnn_deploy.model": "toy"}, "statistics": {"bops": 7680}, "tools": {"toy": "1"}}
    return write_bundle(
        folder / f"{target.name}-{seed}",
        kernels_objects=[kernels],
        plan=toy_plan(seed),
        target=target,
        model_info=info,
        cache=cache or ObjectCache(cache_folder()),
    )


def sanitized_runner(folder: Path) -> Path:
    """The runner with the network inside, built by gcc with AddressSanitizer and UBSan."""
    (folder / "plan.c").write_text(generate_plan_source(toy_plan()))
    (folder / "weights.S").write_text(WEIGHTS_ASSEMBLY)
    (folder / "weights.bin").write_bytes(toy_plan().weights)
    options = ("-std=c11", "-O1", "-g", "-D_GNU_SOURCE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    warnings = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-overlength-strings", "-I", str(RUNTIME_SOURCES))
    sources = [RUNTIME_SOURCES / name for name in (*MODEL_SOURCES, *RUNNER_SOURCES)]
    kernels = Path(__file__).parent / "toy_kernels.c"
    command = ["gcc", *options, *warnings, *map(str, sources), str(kernels), "plan.c", "weights.S"]
    result = subprocess.run([*command, "-o", "runner", "-lm", "-lpthread"], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder / "runner"
