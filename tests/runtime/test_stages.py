"""Stages of many blocks: every block once, on any number of threads, each thread with a workspace of its own."""

from __future__ import annotations

import numpy as np
import pytest

import bnn_deploy
from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.errors import BnnDeployError
from tests.runtime.staged_network import BLOCKS, ROW, staged_bundle, staged_input, staged_reference


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The stage as a bundle of this machine."""
    return staged_bundle(tmp_path_factory.mktemp("stages"))


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 16])
def test_every_block_is_computed_once_in_a_workspace_of_its_own(bundle: Bundle, threads: int) -> None:
    """Blocks are left out, get wrong addresses or a wrong index, or threads share a workspace."""
    x = staged_input()
    model = bnn_deploy.load(bundle.path, threads=threads)
    for _ in range(20):
        np.testing.assert_array_equal(model(x), staged_reference(x))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failing_block_names_its_step(bundle: Bundle, threads: int) -> None:
    """A kernel's failure in one block is lost, or blamed on another step; or the model is unusable afterwards."""
    x = staged_input()
    x[1, 3, 0] = 666
    model = bnn_deploy.load(bundle.path, threads=threads)
    with pytest.raises(BnnDeployError, match="load"):
        model(x)
    x[1, 3, 0] = 1
    assert np.isfinite(model(x)).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stage_shares_its_time_out_over_its_steps(bundle: Bundle, threads: int) -> None:
    """profile shows kernels that together take longer than the network, or no time for some of them."""
    profile = bnn_deploy.load(bundle.path, threads=threads).profile(staged_input(), repeat=5, warmup=1)
    seconds, total = profile
    assert (seconds > 0).all() and (seconds.sum(axis=1) <= total).all()
    # Nearly all the work is in rows_wait.
    assert (seconds[:, 1] > seconds[:, 0]).all() and (seconds[:, 1] > seconds[:, 2]).all()


def test_the_manifest_says_what_runs_in_blocks(bundle: Bundle) -> None:
    """Readers of a bundle cannot tell a kernel that is called once from one that is called for each block."""
    steps = bundle.manifest["steps"]
    assert [(step["stage"], step["blocks"]) for step in steps] == [(0, BLOCKS)] * 3
    assert bundle.manifest["workspace_bytes"] == ROW
