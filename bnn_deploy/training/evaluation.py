"""How well a network classifies the test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from bnn_deploy.training.loader import test_batches
from bnn_deploy.training.processes import Processes

if TYPE_CHECKING:
    from bnn_deploy.training.data import Images

BATCH = 64


@dataclass(frozen=True)
class Evaluation:
    """Share of the images classified rightly, 0..1, and the mean cross-entropy in nats (it may be NaN or infinite)."""

    accuracy: float
    loss: float


@torch.no_grad()
def evaluate(network: nn.Module, images: Images, *, processes: Processes, workers: int) -> Evaluation:
    """Classify all ``images`` in evaluation mode, in which binary layers compute in the order of the compiled kernels.

    Args:
        network: float32 or float64, on this process's device; it is left in evaluation mode.
        images: the test part; each process takes its share, and all have to call this.
        workers: processes that load images.
    """
    network.eval()
    kind = next(network.parameters()).dtype
    # Correct ones, sum of losses, images; whole numbers are exact in float64 far beyond any number of images.
    sums = torch.zeros(3, dtype=torch.float64, device=processes.device)
    for pictures, labels in test_batches(images, batch_size=BATCH, processes=processes, workers=workers):
        labels = labels.to(processes.device)
        logits = network(pictures.to(processes.device, kind))
        losses = F.cross_entropy(logits.double(), labels, reduction="sum")
        sums += torch.stack([(logits.argmax(dim=1) == labels).sum().double(), losses, losses.new_tensor(len(labels))])
    correct, loss, count = processes.total(sums).tolist()
    return Evaluation(correct / count, loss / count)
