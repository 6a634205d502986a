"""What a bundle is compared with: the model's logits, and what every layer of it computes, from three sources.

``whole_model`` gives logits; ``onnxruntime_layers``, ``torch_layers`` and ``golden`` give the values of the layers, see
``layer_values``. Names are imported when they are asked for: a golden file is read with numpy only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnn_deploy.references.batches import fill_batch
    from bnn_deploy.references.choose_layers import open_layers
    from bnn_deploy.references.layer_values import HISTOGRAM_EDGES, LayerReference, LayerValues, SignValues
    from bnn_deploy.references.whole_model import (
        DEFAULT_RANDOM_SAMPLES,
        REFERENCES,
        Reference,
        calibration_dataset,
        open_reference,
    )

# Where each name lies.
_FILES = {
    "DEFAULT_RANDOM_SAMPLES": "whole_model",
    "HISTOGRAM_EDGES": "layer_values",
    "REFERENCES": "whole_model",
    "LayerReference": "layer_values",
    "LayerValues": "layer_values",
    "Reference": "whole_model",
    "SignValues": "layer_values",
    "calibration_dataset": "whole_model",
    "fill_batch": "batches",
    "open_layers": "choose_layers",
    "open_reference": "whole_model",
}

__all__ = [
    "DEFAULT_RANDOM_SAMPLES",
    "HISTOGRAM_EDGES",
    "REFERENCES",
    "LayerReference",
    "LayerValues",
    "Reference",
    "SignValues",
    "calibration_dataset",
    "fill_batch",
    "open_layers",
    "open_reference",
]


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
