"""What torchrun starts twice for test_processes.py: each process saves what it found as a file of its own.

Usage: two_processes.py FOLDER, with FOLDER/images.npy and FOLDER/gradients.npy, (steps, N, C, H, W) float64 each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bnn_deploy.errors import BnnDeployError
from bnn_deploy.training.processes import Processes


def network() -> nn.Sequential:
    """A batch normalisation to compare, with weights and statistics of its own."""
    torch.manual_seed(3)
    layer = nn.BatchNorm2d(3).double()
    for tensor in (layer.weight.data, layer.bias.data, layer.running_mean):
        tensor.normal_()
    return nn.Sequential(layer, nn.Identity())


def batch_norm(processes: Processes, folder: Path) -> dict[str, torch.Tensor]:
    model = network()
    before = {name: id(value) for name, value in model.state_dict(keep_vars=True).items()}
    model = processes.prepare(model)
    assert {name: id(value) for name, value in model.state_dict(keep_vars=True).items()} == before
    found: dict[str, torch.Tensor] = {}
    images, gradients = (
        torch.from_numpy(np.load(folder / f"{name}.npy")[:, processes.rank :: processes.count])
        for name in ("images", "gradients")
    )
    model.train()
    for step, (x, gradient) in enumerate(zip(images, gradients, strict=True)):
        leaf = x.clone().requires_grad_()
        y = model(leaf)
        y.backward(gradient)
        found |= {f"y{step}": y.detach(), f"dx{step}": leaf.grad}
    found |= {f"d{name}": processes.total(value.grad) for name, value in model[0].named_parameters()}
    found |= {name: value.clone() for name, value in model[0].state_dict().items()}
    found["evaluated"] = model.eval()(images[0]).detach()
    found["half"] = model.train()(images[0].bfloat16()).float().detach()
    return found


def averaging(processes: Processes) -> dict[str, torch.Tensor]:
    """The gradients of a wrapped model whose initial weights and images differ between the processes."""
    torch.manual_seed(processes.rank)
    model = nn.Linear(2, 1, bias=False).double()
    wrapped = processes.wrap(model)
    found = {"initial": model.weight.detach().clone()}
    images = torch.tensor([[1.0, 2.0], [16.0, 32.0]], dtype=torch.float64) * (1 + processes.rank)
    wrapped(images[:1]).sum().backward()
    found["one"] = model.weight.grad.clone()
    model.zero_grad()
    with wrapped.no_sync():
        wrapped(images[:1]).sum().backward()
    found["accumulating"] = model.weight.grad.clone()
    wrapped(images[1:]).sum().backward()
    found["accumulated"] = model.weight.grad.clone()
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    processes = Processes.start("cpu")
    found = batch_norm(processes, folder) | averaging(processes)
    processes.barrier()
    found["total"] = processes.total(torch.tensor([1.0, 10.0]) * (1 + processes.rank))
    found["any"] = torch.tensor([processes.any(rank == processes.rank) for rank in (0, 1, 2)])
    found["who"] = torch.tensor([processes.rank, processes.count, processes.is_first])
    np.savez(folder / f"{processes.rank}.npz", **{name: value.numpy() for name, value in found.items()})
    if processes.is_first:
        # The other one ends here, with exit status 0, so that torchrun does not end this one too.
        try:
            with processes:
                processes.total(torch.zeros(1))
        except BnnDeployError as error:
            (folder / "error.txt").write_text(str(error))
    else:
        processes.close()


if __name__ == "__main__":
    main()
