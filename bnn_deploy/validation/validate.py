"""Does a bundle compute what the model computes: top-1 agreement and logit error against PyTorch or onnxruntime."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from math import lcm, prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bnn_deploy.datasets import open_dataset
from bnn_deploy.errors import BundleError, InputError
from bnn_deploy.import_report import ActivationReport
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.runtime.arrays import batch_size
from bnn_deploy.validation.model_level import compare
from bnn_deploy.validation.report import ValidationReport

if TYPE_CHECKING:
    from bnn_deploy.bundle import Bundle
    from bnn_deploy.devices.base import Device


def validate(
    onnx_path: Path,
    bundle: Bundle,
    *,
    reference: str = "onnxruntime",
    data: Path | None = None,
    samples: int | None = None,
    device: Device | None = None,
    threads: int = 1,
    weights: Path | None = None,
    min_agreement: float = 1.0,
    progress: ReportProgress = quiet,
) -> ValidationReport:
    """Run the bundle and a reference on the same images and compare their logits.

    Args:
        onnx_path: the exported model that the bundle was compiled from.
        bundle: what to check.
        reference: "onnxruntime" runs the ONNX file; "torch" builds the PyTorch model that its metadata describe.
        data: see ``datasets.open_dataset``; None regenerates the calibration inputs that the file's metadata describe,
            whose activations keep a margin from every threshold, or takes seeded normal inputs if there are none.
        samples: how many of the images, all if None.
        device: where the bundle runs; None is this machine.
        threads: threads of one inference of the bundle.
        weights: checkpoint for the reference "torch" if the file was exported from one.
        min_agreement: the part of the images for which bundle and reference must name the same class.
        progress: called with a message after every batch.

    Raises:
        InputError: data that does not fit, or too few samples.
        ModelFileError: the ONNX file or the checkpoint cannot be used.
        BundleError: the bundle does not fit the model or the device.
    """
    from bnn_deploy.devices import get_device
    from bnn_deploy.references import fill_batch, open_reference

    chosen = device or get_device("local")
    progress(f"{onnx_path}: preparing the reference")
    strangers = _check_origin(onnx_path, bundle)
    activations = [] if strangers or reference != "onnxruntime" else _activations(onnx_path, bundle)
    model = open_reference(reference, onnx_path, weights, activations)
    image_shape, classes = _common_shapes(model.input_shape, model.classes, bundle, onnx_path)
    dataset = open_dataset(data, image_shape, classes) if data is not None else model.default_dataset(samples)
    count = dataset.samples if samples is None else samples
    if count > dataset.samples:
        raise InputError(
            f"{dataset.source}: holds {dataset.samples} images, fewer than --samples {count}; ask for fewer."
        )
    warnings = [dataset.note] if dataset.note else []
    warnings += strangers

    # Whole batches of both, so that only the last ones have to be filled up.
    size = batch_size(image_shape, lcm(model.batch, bundle.batch))
    with chosen.open(bundle, threads, progress) as session:

        def run_bundle(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            return session.run_many(fill_batch(images, bundle.batch) for images in batches)

        comparison = compare(dataset, count, model.run, run_bundle, size, progress)
        boards = session.boards()
    model_result = comparison.result(min_agreement)
    return ValidationReport(
        model_file=str(onnx_path),
        bundle=str(bundle.path),
        target=bundle.target,
        device=chosen.name,
        reference=reference,
        data=dataset.source,
        levels=(),
        model=model_result,
        warnings=(*warnings, *comparison.warnings()),
        boards=boards,
        zero_activations=None if model.zeros is None else model.zeros.to_dict(),
        margin=None,
        passed=model_result.passed,
    )


def _common_shapes(
    input_shape: tuple[int, ...], classes: int, bundle: Bundle, onnx_path: Path
) -> tuple[tuple[int, ...], int]:
    """Shape of one image and number of logits, after checking that model and bundle agree on them."""
    if len(bundle.inputs) != 1 or len(bundle.outputs) != 1:
        raise InputError(
            f"{bundle.path}: has {len(bundle.inputs)} inputs and {len(bundle.outputs)} outputs; "
            "validate compares models with one image in and one row of logits out."
        )
    bundle_shape, bundle_classes = bundle.inputs[0].shape[1:], prod(bundle.outputs[0].shape[1:])
    if input_shape != bundle_shape or classes != bundle_classes:
        raise InputError(
            f"{onnx_path}: takes images {input_shape} to {classes} logits, but the bundle {bundle.path} takes "
            f"{bundle_shape} to {bundle_classes}; compile it again, or give the file that the bundle came from."
        )
    return input_shape, classes


def _check_origin(onnx_path: Path, bundle: Bundle) -> list[str]:
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


def _activations(onnx_path: Path, bundle: Bundle) -> list[ActivationReport]:
    """What the compiler made of the signs of the file that ``bundle`` was compiled from."""
    from bnn_deploy.foreign_model import ZERO_KEY, open_model

    recorded = bundle.manifest.get("import")
    if not recorded:
        changed = ZERO_KEY in bundle.manifest.get("model", {})
        return open_model(onnx_path).report.activations if changed else []
    try:
        activations = [ActivationReport(**row) for row in recorded["activations"]]
        known = all(_is_sensible(row) for row in activations)
    except (TypeError, KeyError):
        known = False
    if not known:
        raise BundleError(f"{bundle.path}: its manifest says nothing sensible of the import; compile the model again.")
    return activations


def _is_sensible(row: ActivationReport) -> bool:
    names = isinstance(row.name, str) and isinstance(row.source, str)
    numbers = isinstance(row.threshold, int | float | str) and {row.graph_zero, row.compiled_zero} <= {-1, 0, 1}
    return names and numbers
