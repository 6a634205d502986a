"""bnn-deploy: binary neural networks from PyTorch to real devices, with parity checked bit by bit.

These names are the public interface, docs/api.md shows them at work. Importing the package is cheap: torch, tvm and onnxruntime are
imported by the names that need them, when these are first asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bnn_deploy.errors import BnnDeployError
from bnn_deploy.lazy_names import lazy_names
from bnn_deploy.version import __version__

# In a checkout passes/, targets/ and models/ lie beside this package; in a wheel they are installed inside it.
if (Path(__file__).parent.parent / "passes" / "__init__.py").is_file():
    __path__.append(str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from bnn_deploy.bundle.bundle import Bundle
    from bnn_deploy.compiler import compile_model
    from bnn_deploy.devices.registry import get_device
    from bnn_deploy.export.export_model import export_model
    from bnn_deploy.passes.onnx.import_report import ImportOptions
    from bnn_deploy.profiling.measuring import profile_bundle
    from bnn_deploy.runtime.loader import Model, load
    from bnn_deploy.training.data import open_training_data
    from bnn_deploy.training.options import TrainOptions
    from bnn_deploy.training.recipe import load_recipe
    from bnn_deploy.training.runs import train
    from bnn_deploy.validation.validate import validate

__all__ = [
    "BnnDeployError",
    "Bundle",
    "ImportOptions",
    "Model",
    "TrainOptions",
    "__version__",
    "compile_model",
    "export_model",
    "get_device",
    "load",
    "load_recipe",
    "open_training_data",
    "profile_bundle",
    "train",
    "validate",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Bundle": "bnn_deploy.bundle.bundle",
        "ImportOptions": "bnn_deploy.passes.onnx.import_report",
        "Model": "bnn_deploy.runtime.loader",
        "TrainOptions": "bnn_deploy.training.options",
        "compile_model": "bnn_deploy.compiler",
        "export_model": "bnn_deploy.export.export_model",
        "get_device": "bnn_deploy.devices.registry",
        "load": "bnn_deploy.runtime.loader",
        "load_recipe": "bnn_deploy.training.recipe",
        "open_training_data": "bnn_deploy.training.data",
        "profile_bundle": "bnn_deploy.profiling.measuring",
        "train": "bnn_deploy.training.runs",
        "validate": "bnn_deploy.validation.validate",
    },
)
