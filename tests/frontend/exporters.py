"""Both exporters of PyTorch, called as a user calls them."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import nn

EXPORTERS = ("dynamo", "script")


def export(module: nn.Module, path: Path, shape: tuple[int, ...], exporter: str, batch: int | None = None) -> Path:
    """Write ``module`` for inputs (batch, *shape) to ``path``; ``batch`` None makes it dynamic."""
    example = torch.zeros(2 if batch is None else batch, *shape)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            dynamic = None if batch is not None else ({0: torch.export.Dim("batch")},)
            torch.onnx.export(
                module, (example,), str(path), dynamo=True, input_names=["image"], dynamic_shapes=dynamic, verbose=False
            )
        else:
            axes = {} if batch is not None else {"image": {0: "batch"}}
            torch.onnx.export(module, (example,), str(path), dynamo=False, input_names=["image"], dynamic_axes=axes)
    return path
