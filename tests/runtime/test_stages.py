"""Stages of many blocks: every block once, on any number of threads, each thread with a workspace of its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import bnn_deploy
from bnn_deploy.bundle import Bundle, write_bundle
from bnn_deploy.errors import BnnDeployError
from bnn_deploy.object_cache import ObjectCache, cache_folder
from bnn_deploy.plan import Argument, ExecutionPlan, Space, Stage, Step, TensorSpecification
from tests.runtime.toy_network import HOST

IMAGES, BLOCKS_PER_IMAGE, WIDTH = 2, 7, 32
BLOCKS = IMAGES * BLOCKS_PER_IMAGE
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
    row = 4 * WIDTH
    bias = np.arange(IMAGES * WIDTH, dtype=np.float32)
    workspace = Argument(Space.WORKSPACE, 0)
    image_bias = Argument(Space.WEIGHTS, 0, stride=row, every=BLOCKS_PER_IMAGE)
    steps = (
        Step("rows_load", "load", "float", (Argument(Space.INPUT, 0, stride=row), workspace)),
        Step("rows_wait", "wait", "float", (workspace,)),
        Step(
            "rows_store",
            "store",
            "float",
            (workspace, image_bias, Argument(Space.OUTPUT, 0, stride=row)),
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
        workspace_bytes=row,
        stages=(Stage(3, BLOCKS),),
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The stage as a bundle of this machine."""
    folder = tmp_path_factory.mktemp("stages")
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


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(-9, 10, (IMAGES, BLOCKS_PER_IMAGE, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 16])
def test_every_block_is_computed_once_in_a_workspace_of_its_own(bundle: Bundle, threads: int) -> None:
    """Blocks are left out, get wrong addresses or a wrong index, or threads share a workspace."""
    x = image()
    bias = np.arange(IMAGES * WIDTH, dtype=np.float32).reshape(IMAGES, 1, WIDTH)
    index = np.arange(BLOCKS, dtype=np.float32).reshape(IMAGES, BLOCKS_PER_IMAGE, 1)
    model = bnn_deploy.load(bundle.path, threads=threads)
    for _ in range(20):
        np.testing.assert_array_equal(model(x), 2 * x + bias + index)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failing_block_names_its_step(bundle: Bundle, threads: int) -> None:
    """A kernel's failure in one block is lost, or blamed on another step; or the model is unusable afterwards."""
    x = image()
    x[1, 3, 0] = 666
    model = bnn_deploy.load(bundle.path, threads=threads)
    with pytest.raises(BnnDeployError, match="load"):
        model(x)
    x[1, 3, 0] = 1
    assert np.isfinite(model(x)).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stage_shares_its_time_out_over_its_steps(bundle: Bundle, threads: int) -> None:
    """profile shows kernels that together take longer than the network, or no time for some of them."""
    profile = bnn_deploy.load(bundle.path, threads=threads).profile(image(), repeat=5, warmup=1)
    seconds, total = profile
    assert (seconds > 0).all() and (seconds.sum(axis=1) <= total).all()
    # Nearly all the work is in rows_wait.
    assert (seconds[:, 1] > seconds[:, 0]).all() and (seconds[:, 1] > seconds[:, 2]).all()


def test_the_manifest_says_what_runs_in_blocks(bundle: Bundle) -> None:
    """Readers of a bundle cannot tell a kernel that is called once from one that is called for each block."""
    steps = bundle.manifest["steps"]
    assert [(step["stage"], step["blocks"]) for step in steps] == [(0, BLOCKS)] * 3
    assert bundle.manifest["workspace_bytes"] == 4 * WIDTH
