"""A training loop that is enough for scikit-learn's handwritten digits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnn_deploy.models.digit_images import load_digits_split

__all__ = ["accuracy", "load_digits_split", "train_digits"]

BATCH = 64
LEARNING_RATE = 8e-3

Progress = Callable[[int, int, float], None]


def train_digits(model: nn.Module, epochs: int = 10, seed: int = 0, progress: Progress | None = None) -> float:
    """Train a model of (N, 1, 8, 8) to 10 classes on the digits; the same seed on one machine gives the same weights.

    Args:
        model: left in evaluation mode, trained.
        epochs: passes over the training images.
        seed: of the order of the images. The initial weights are the model's; seed torch before building it.
        progress: called after each epoch with its number from 1, the number of epochs, and the mean training loss.

    Returns:
        Accuracy on the test split, 0..1.
    """
    x_train, y_train, x_test, y_test = (torch.from_numpy(array) for array in load_digits_split())
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    batches = len(x_train) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    threads = torch.get_num_threads()
    # The tensors are small: a second thread saves little alone, and costs tenfold when another process has its core.
    torch.set_num_threads(1)
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            order = torch.randperm(len(x_train), generator=generator)
            total = 0.0
            for batch in order[: batches * BATCH].reshape(batches, BATCH):
                loss = F.cross_entropy(model(x_train[batch]), y_train[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item()
            if progress:
                progress(epoch, epochs, total / batches)
        return accuracy(model, x_test, y_test)
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images whose largest logit is their label's; the model is left in evaluation mode."""
    model.eval()
    return float((model(images).argmax(dim=1) == labels).float().mean())
