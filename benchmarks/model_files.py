"""What the benchmarks take as MODEL: an ONNX file, or the name of a model, which is then exported with seeded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bnn_deploy.export.export_model import export_model
from bnn_deploy.export.provenance import build
from bnn_deploy.models.registry import MODELS

ALL = [
    f"{name}:{variant}" if variant else name for name, spec in MODELS.items() for variant in (spec.variants or ("",))
]


def onnx_file(model: str, folder: Path, batch: int | Literal["dynamic"] = "dynamic") -> Path:
    """The ONNX file called ``model``, or ``name`` or ``name:variant`` exported to ``folder``.

    Args:
        model: ends in ``.onnx``, or is one of ``ALL``.
        folder: for exported files.
        batch: of exported files.

    Raises:
        InputError: an unknown name or variant.
    """
    if model.endswith(".onnx"):
        return Path(model)
    name, _, variant = model.partition(":")
    built = build(name, variant=variant or None)
    path = folder / f"{name}_{variant}.onnx"
    export_model(built.module, path, input_shape=built.input_shape, batch=batch, metadata=built.metadata)
    return path
