"""Processes that train together: two of them on the CPU under torchrun, started once, and the trivial single one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bnn_deploy.errors import InputError, ToolError
from bnn_deploy.training.processes import Processes
from tests.training.two_processes import network

# Two steps of 12 images of 3 channels and 4 x 5 pixels. A mean far from zero, as between layers, would show a variance
# computed as a difference of large sums.
IMAGES = np.random.RandomState(0).normal(50, 1, (2, 12, 3, 4, 5))
GRADIENTS = np.random.RandomState(1).normal(0, 1, IMAGES.shape)
Found = list[dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two_processes.py left."""
    folder = tmp_path_factory.mktemp("processes")
    np.save(folder / "images.npy", IMAGES)
    np.save(folder / "gradients.npy", GRADIENTS)
    script = Path(__file__).with_name("two_processes.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, str(script), str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Found:
    return [dict(np.load(folder / f"{rank}.npz")) for rank in (0, 1)]


def test_batch_norm_is_that_of_all_images(found: Found) -> None:
    """Breaks when BN in two processes differs from nn.BatchNorm2d of both batches together, in any result or gradient."""
    model = network().train()
    expected: dict[str, torch.Tensor] = {}
    for step, (x, gradient) in enumerate(zip(torch.from_numpy(IMAGES), torch.from_numpy(GRADIENTS), strict=True)):
        leaf = x.clone().requires_grad_()
        y = model(leaf)
        y.backward(gradient)
        expected |= {f"y{step}": y.detach(), f"dx{step}": leaf.grad}
    expected |= {f"d{name}": value.grad for name, value in model[0].named_parameters()}
    expected |= model[0].state_dict()
    expected["evaluated"] = model.eval()(torch.from_numpy(IMAGES[0])).detach()
    for name, value in expected.items():
        for rank in (0, 1):
            mine = value.numpy()[rank::2] if name.startswith(("y", "dx", "evaluated")) else value.numpy()
            # Sums of 240 values below 56, each rounded 240 times at most: the mean is off by 240 * 56 * 1.2e-16 = 1.6e-12,
            # and so is what is divided by the deviation, 1. Weights, gradients and the two means of them that the gradient
            # of x subtracts are below 10.
            np.testing.assert_allclose(found[rank][name], mine, rtol=0, atol=1e-10, err_msg=name)
    rounded = torch.from_numpy(IMAGES[0]).bfloat16().double()
    half = model.train()(rounded).detach().numpy()
    for rank in (0, 1):
        # Statistics in float32, as above but with 6e-8 for 1.2e-16: 240 * 56 * 6e-8 = 8e-4, times weights below 2; then a
        # rounding to eight bits of values below 8.
        np.testing.assert_allclose(found[rank]["half"], half[rank::2], rtol=0, atol=2e-3 + 8 * 2**-9)


def test_running_statistics_agree_between_processes(found: Found) -> None:
    """Breaks when processes drift apart, so that it would matter which one's statistics are saved."""
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        np.testing.assert_array_equal(found[0][name], found[1][name])
    assert found[0]["num_batches_tracked"] == 2


def test_gradients_are_averaged(found: Found) -> None:
    """Breaks when processes step apart from each other, or a gradient is exchanged before it is complete."""
    np.testing.assert_array_equal(found[0]["initial"], found[1]["initial"])
    # The images are (1, 2) and (16, 32) in the first process, twice that in the second.
    for rank in (0, 1):
        np.testing.assert_array_equal(found[rank]["one"], [[1.5, 3]])
        np.testing.assert_array_equal(found[rank]["accumulating"], np.array([[1, 2]]) * (1 + rank))
        np.testing.assert_array_equal(found[rank]["accumulated"], [[25.5, 51]])


def test_what_processes_tell_each_other(found: Found) -> None:
    """Breaks when processes do not know who they are, or one's value does not reach the other."""
    for rank in (0, 1):
        assert found[rank]["who"].tolist() == [rank, 2, rank == 0]
        assert found[rank]["total"].tolist() == [3, 30]
        assert found[rank]["any"].tolist() == [True, True, False]


def test_the_end_of_one_ends_the_others(folder: Path) -> None:
    """Breaks when a process waits for ever for one that failed, or shows a traceback of gloo's instead of a sentence."""
    assert (folder / "error.txt").read_text().startswith("Process 0 of 2 lost another one that trains with it")


def test_one_process_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when training in one process needs torch.distributed, or a wrapped model has other names."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for processes in (Processes.single(), Processes.start("cpu")):
        model = nn.Sequential(nn.BatchNorm2d(2))
        assert (processes.rank, processes.count, processes.is_first) == (0, 1, True)
        assert processes.device == torch.device("cpu")
        assert processes.wrap(processes.prepare(model)) is model
        assert type(model[0]) is nn.BatchNorm2d
        value = torch.ones(2, requires_grad=True)
        total = processes.total(value)
        assert total.tolist() == [1, 1] and not total.requires_grad and total.data_ptr() != value.data_ptr()
        assert processes.any(True) and not processes.any(False)
        processes.barrier()
        processes.close()
    automatic = Processes.start(None).device
    assert automatic.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("tpu", "Unknown device 'tpu' to train on; choose 'cpu', 'cuda' or 'cuda:N'"),
        ("cuda:-1", "Unknown device"),
        ("cuda:99", r"needs GPU 99 but PyTorch finds \d+ on this machine; choose 'cpu'"),
    ],
)
def test_devices_that_do_not_exist(device: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a wrong device ends in PyTorch's traceback, or training silently takes another one."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(InputError, match=message):
        Processes.start(device)
    with pytest.raises(InputError, match=message):
        Processes.single(device)


@pytest.mark.parametrize(
    ("rank", "count", "local_rank", "device", "error", "message"),
    [
        ("2", "2", "0", "cpu", InputError, "RANK='2', WORLD_SIZE='2', LOCAL_RANK='0', but .* start it with torchrun"),
        ("0", "2", "1", "cpu", InputError, "LOCAL_RANK <= RANK"),
        ("", "2", "0", "cpu", InputError, "RANK=''"),
        ("0", "0", "0", "cpu", InputError, "WORLD_SIZE='0'"),
        ("0", "2", "0", "cuda:1", InputError, "2 processes cannot all train on cuda:1; give 'cuda'"),
        ("0", "2", "0", "cpu", ToolError, r"Process 0 of 2 could not join the others by gloo \(.*MASTER_ADDR"),
    ],
)
def test_environments_that_cannot_be(
    rank: str,
    count: str,
    local_rank: str,
    device: str,
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Breaks when a wrong start of several processes trains in one of them alone, hangs, or ends in a traceback."""
    for name, value in (("RANK", rank), ("WORLD_SIZE", count), ("LOCAL_RANK", local_rank)):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(error, match=message):
        Processes.start(device)
