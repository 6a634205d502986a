"""Is a bundle the compiled form of this file, and with which choices was it compiled?"""

from __future__ import annotations

import hashlib
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from bnn_deploy.errors import BundleError, InputError
from bnn_deploy.passes.onnx.import_report import ActivationReport, ImportOptions

if TYPE_CHECKING:
    from bnn_deploy.bundle.bundle import Bundle


def check_shapes(input_shape: tuple[int, ...], classes: int, bundle: Bundle, source: Path) -> None:
    """Model (or golden file) and bundle must take and give the same.

    Raises:
        InputError: they do not, or the bundle has several inputs or outputs.
    """
    if len(bundle.inputs) != 1 or len(bundle.outputs) != 1:
        raise InputError(
            f"{bundle.path}: has {len(bundle.inputs)} inputs and {len(bundle.outputs)} outputs; "
            "validate compares models with one image in and one row of logits out."
        )
    bundle_shape, bundle_classes = bundle.inputs[0].shape[1:], prod(bundle.outputs[0].shape[1:])
    if input_shape != bundle_shape or classes != bundle_classes:
        raise InputError(
            f"{source}: takes images {input_shape} to {classes} logits, but the bundle {bundle.path} takes "
            f"{bundle_shape} to {bundle_classes}; compile it again, or give the file that the bundle came from."
        )


def recorded_options(bundle: Bundle) -> ImportOptions:
    """The choices that the bundle was compiled with.

    Raises:
        BundleError: its manifest says nothing sensible of them.
    """
    recorded = bundle.manifest.get("import") or {}
    try:
        return ImportOptions(**recorded.get("options", {}))
    except (AttributeError, TypeError) as error:
        raise _damaged(bundle) from error


def check_origin(onnx_path: Path, bundle: Bundle) -> list[str]:
    """A sentence if the bundle says that it came from another file."""
    recorded = bundle.manifest.get("model", {}).get("onnx_sha256")
    if recorded is None:
        return []
    try:
        content = onnx_path.read_bytes()
    except OSError:
        return []  # which the reference, opened next, explains
    if hashlib.sha256(content).hexdigest() == recorded:
        return []
    return [f"{bundle.path} was compiled from another file than {onnx_path} (their SHA-256 differ); compile it again."]


def recorded_activations(onnx_path: Path, bundle: Bundle) -> list[ActivationReport]:
    """What the compiler made of the signs of the file that ``bundle`` was compiled from.

    Raises:
        BundleError: its manifest says nothing sensible of them.
    """
    from bnn_deploy.frontend.open_model import open_model
    from bnn_deploy.metadata import entries

    recorded = bundle.manifest.get("import")
    if not recorded:
        changed = entries.SIGN_ZERO_CHANGED in bundle.manifest.get("model", {})
        return open_model(onnx_path).report.activations if changed else []
    try:
        activations = [ActivationReport(**row) for row in recorded["activations"]]
        known = all(_is_sensible(row) for row in activations)
    except (TypeError, KeyError):
        known = False
    if not known:
        raise _damaged(bundle)
    return activations


def _is_sensible(row: ActivationReport) -> bool:
    names = isinstance(row.name, str) and isinstance(row.source, str)
    numbers = isinstance(row.threshold, int | float | str) and {row.graph_zero, row.compiled_zero} <= {-1, 0, 1}
    return names and numbers


def _damaged(bundle: Bundle) -> BundleError:
    return BundleError(f"{bundle.path}: its manifest says nothing sensible of the import; compile the model again.")
