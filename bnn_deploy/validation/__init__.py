"""Does a bundle compute what the model computes: kernel by kernel, layer by layer, and as a whole."""

from bnn_deploy.validation.model_level import Comparison, compare, wilson_interval
from bnn_deploy.validation.report import Example, LevelResult, ModelResult, TensorResult, ValidationReport
from bnn_deploy.validation.validate import validate

__all__ = [
    "Comparison",
    "Example",
    "LevelResult",
    "ModelResult",
    "TensorResult",
    "ValidationReport",
    "compare",
    "validate",
    "wilson_interval",
]
