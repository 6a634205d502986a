"""What a bundle is compared with: the model's logits, and what every layer of it computes, from three sources.

``whole_model`` gives logits; ``onnxruntime_layers``, ``torch_layers`` and ``golden`` give the values of the layers, see
``layer_values``. Names are imported when they are asked for: a golden file is read with numpy only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnn_deploy.references.batches import fill_batch
    from bnn_deploy.references.whole_model import (
        DEFAULT_RANDOM_SAMPLES,
        REFERENCES,
        Reference,
        calibration_dataset,
        open_reference,
    )

__all__ = [
    "DEFAULT_RANDOM_SAMPLES",
    "REFERENCES",
    "Reference",
    "calibration_dataset",
    "fill_batch",
    "open_reference",
]

# Where each name lies.
_FILES = {
    **dict.fromkeys(__all__, "whole_model"),
    "fill_batch": "batches",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
