"""A small network of one stage of many blocks, made of C kernels: y = 2 * x + bias of the image + index of the block."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.writing import write_bundle
from bnn_deploy.codegen.object_cache import ObjectCache, cache_folder
from bnn_deploy.plan import Argument, ExecutionPlan, Space, Stage, Step, TensorSpecification
from tests.runtime.toy_network import HOST

IMAGES, BLOCKS_PER_IMAGE, WIDTH = 2, 7, 32
BLOCKS = IMAGES * BLOCKS_PER_IMAGE
ROW = 4 * WIDTH
KERNELS = """
#include <stdint.h>
enum { WIDTH = 32 };

/* One row into the workspace; 666 fails. */
int32_t rows_load(void *input, void *workspace) {
    const float *x = input;
    float *w = workspace;
    for (int i = 0; i < WIDTH; i++) {
        w[i] = x[i];
    }
    return x[0] == 666.0f ? -1 : 0;
}

/* Time for another thread to overwrite a workspace that is not this thread's own. */
int32_t rows_wait(void *workspace) {
    volatile float *w = workspace;
    for (int i = 0; i < 20000; i++) {
        w[i % WIDTH] = w[i % WIDTH];
    }
    return 0;
}

/* 2 * row + image bias + index of the block. */
int32_t rows_store(void *workspace, void *bias, void *output, int32_t block) {
    const float *w = workspace, *b = bias;
    float *y = output;
    for (int i = 0; i < WIDTH; i++) {
        y[i] = 2 * w[i] + b[i] + (float)block;
    }
    return 0;
}
"""


def staged_plan() -> ExecutionPlan:
    """A stage of 14 blocks: one row of 32 floats each, biases per image among the weights."""
    bias = np.arange(IMAGES * WIDTH, dtype=np.float32)
    workspace = Argument(Space.WORKSPACE, 0)
    image_bias = Argument(Space.WEIGHTS, 0, stride=ROW, every=BLOCKS_PER_IMAGE)
    steps = (
        Step("rows_load", "load", "float", (Argument(Space.INPUT, 0, stride=ROW), workspace)),
        Step("rows_wait", "wait", "float", (workspace,)),
        Step(
            "rows_store",
            "store",
            "float",
            (workspace, image_bias, Argument(Space.OUTPUT, 0, stride=ROW)),
            takes_block=True,
        ),
    )
    shape = (IMAGES, BLOCKS_PER_IMAGE, WIDTH)
    return ExecutionPlan(
        steps,
        (TensorSpecification("x", shape),),
        (TensorSpecification("y", shape),),
        bias.tobytes(),
        arena_bytes=0,
        workspace_bytes=ROW,
        stages=(Stage(3, BLOCKS),),
    )


def staged_bundle(folder: Path) -> Bundle:
    """Build its bundle for this machine into a folder."""
    (folder / "kernels.c").write_text(KERNELS)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-gnu", "-O2", "-fPIC", "-c", "kernels.c"]
    subprocess.run([*command, "-o", "kernels.o"], cwd=folder, check=True)
    return write_bundle(
        folder / "bundle",
        kernels_objects=[folder / "kernels.o"],
        plan=staged_plan(),
        target=HOST,
        model_info={},
        cache=ObjectCache(cache_folder()),
    )


def staged_input() -> np.ndarray:
    """float32 (2, 7, 32) of whole numbers, so that results are exact."""
    return np.random.default_rng(0).integers(-9, 10, (IMAGES, BLOCKS_PER_IMAGE, WIDTH)).astype(np.float32)


def staged_reference(rows: np.ndarray) -> np.ndarray:
    """What the network gives for rows (…, 7, 32) in its workspace, by numpy."""
    bias = np.arange(IMAGES * WIDTH, dtype=np.float32).reshape(IMAGES, 1, WIDTH)
    return 2 * rows + bias + np.arange(BLOCKS, dtype=np.float32).reshape(IMAGES, BLOCKS_PER_IMAGE, 1)
