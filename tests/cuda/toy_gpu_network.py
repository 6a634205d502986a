"""The small network of tests/runtime as a plan for a GPU, with kernels that the fake driver runs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.writing import write_bundle
from bnn_deploy.codegen.device_code import DeviceCode
from bnn_deploy.codegen.object_cache import ObjectCache, cache_folder
from bnn_deploy.plan import Argument, ExecutionPlan, Launch, Space, Step, TensorSpecification
from bnn_deploy.targets.base import Gpu, Target
from tests.runtime.toy_network import BATCH, HIDDEN, INPUTS, constants
from tests.runtime.toy_taps import toy_taps

KERNELS = Path(__file__).parent / "toy_gpu_kernels.c"
HOST = Target("toy-gpu", "a GPU of this machine", "x86_64", "x86-64", required_cpu_flags=("sse2",), gpu=Gpu(87))
BOARD = Target("toy-orin", "a Jetson Orin", "arm64", "generic", required_cpu_flags=("asimd",), gpu=Gpu(87))
# Images that the fake driver tells apart; its kernels are elsewhere.
CODE = DeviceCode(b"\x7fELF toy", ".version 7.4\n.target sm_87\n.address_size 64\n", 87, "12.2")


def toy_gpu_plan(seed: int = 0) -> ExecutionPlan:
    """``tests.runtime.toy_network.reference`` in two steps and three launches."""
    places, weights = [], b""
    for constant in constants(seed):
        places.append(Argument(Space.WEIGHTS, len(weights)))
        weights += constant.tobytes() + b"\0" * (-constant.nbytes % 64)
    scaled, scratch = Argument(Space.ARENA, 0), Argument(Space.ARENA, 384)
    source, result = Argument(Space.INPUT, 0), Argument(Space.OUTPUT, 0)
    steps = (
        Step(
            "scale",
            "stem",
            "float",
            (source, places[0], scaled),
            launches=(Launch("gpu_scale", (1, 1, 1), (96, 1, 1)),),
        ),
        Step(
            "matmul",
            "body + head",
            "binary",
            (scaled, places[1], places[2], result, scratch),
            binary_macs=BATCH * INPUTS * HIDDEN,
            launches=(Launch("gpu_sums", (40, 2, 1), (48, 1, 1)), Launch("gpu_bias", (2, 1, 1), (40, 1, 1))),
        ),
    )
    inputs = (TensorSpecification("image", (BATCH, INPUTS)),)
    outputs = (TensorSpecification("logits", (BATCH, HIDDEN)),)
    return ExecutionPlan(steps, inputs, outputs, weights, arena_bytes=384 + 320)


def toy_gpu_taps(force: Collection[str] = ()) -> np.ndarray:
    """``tests.runtime.toy_taps.toy_taps`` at the same places, which two steps write; the sums are read within the second."""
    taps = toy_taps(force)
    taps[:, 1] = (0, 1, 1)
    return taps


def toy_gpu_bundle(folder: Path, target: Target = HOST) -> Bundle:
    """Build the network's bundle into a folder."""
    return write_bundle(
        folder / target.name,
        device_code=CODE,
        plan=toy_gpu_plan(),
        target=target,
        model_info={"tools": {"toy": "1"}},
        cache=ObjectCache(cache_folder()),
    )
