"""Does a bundle compute what the model computes: its kernels, its layers and the whole of it, one after the other.

All levels that were asked for are run, also after one has failed, so that the report is whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bnn_deploy.bundle.tensor_file import open_table
from bnn_deploy.bundle.tensor_table import TensorTable
from bnn_deploy.errors import InputError
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.references.batches import fill_batch
from bnn_deploy.runtime.arrays import batch_size
from bnn_deploy.validation.compiled_file import CompiledFile
from bnn_deploy.validation.kernel_level import LevelOutcome, compare_kernels
from bnn_deploy.validation.layer_level import compare_layers
from bnn_deploy.validation.model_level import Comparison, compare
from bnn_deploy.validation.origin import check_origin, check_shapes
from bnn_deploy.validation.patterns import PATTERNS
from bnn_deploy.validation.report import LevelResult, ModelResult, TensorResult, ValidationReport
from bnn_deploy.validation.sides import EXACT, Side, open_side

if TYPE_CHECKING:
    from bnn_deploy.bundle.bundle import Bundle
    from bnn_deploy.devices.base import Device, Session
    from bnn_deploy.exact.network import ExactNetwork
    from bnn_deploy.validation.graph_paths import GraphPaths

LEVELS = (1, 2, 3)
# Kernels of GPUs sum in another order. A sum of 2**11 products of one size, the longest of the zoo, is off by 2**11 roundings of
# 2**-24 of the largest partial sum at most.
GPU_MARGIN = 2.0**-13


def validate(
    onnx_path: Path | None,
    bundle: Bundle,
    *,
    reference: str = "onnxruntime",
    golden: Path | None = None,
    data: Path | None = None,
    samples: int | None = None,
    device: Device | None = None,
    threads: int = 1,
    weights: Path | None = None,
    levels: Collection[int] = LEVELS,
    layer_samples: int = 1,
    margin: float | None = None,
    min_agreement: float = 1.0,
    deterministic_reference: bool = False,
    state: Path | None = None,
    progress: ReportProgress = quiet,
) -> ValidationReport:
    """Run the bundle and a reference on the same images and compare what they compute.

    Args:
        onnx_path: the file that the bundle was compiled from; None needs ``golden``, and leaves level 1 out.
        bundle: what to check.
        reference: "onnxruntime" runs the ONNX file; "torch" builds the PyTorch model that its metadata describe; "golden"
            takes the values that ``golden`` recorded.
        golden: file of ``bnn-deploy golden``, for the reference "golden".
        data: see ``data.open_dataset``; None takes the golden file's images, or regenerates the calibration inputs that the
            ONNX file's metadata describe, whose activations keep a margin from every threshold, or takes seeded normal
            inputs if there are none.
        samples: how many of the images level 3 takes, all if None.
        device: where the bundle runs; None is this machine.
        threads: threads of one inference of the bundle.
        weights: checkpoint for the reference "torch" if the file was exported from one.
        levels: 1 compares each kernel with an exact evaluation of the compiled network, 2 each layer with the reference,
            fed by the reference's own values, 3 the logits of the whole model.
        layer_samples: images of the levels 1 and 2, rounded up to whole batches of the bundle.
        margin: the part of a layer's largest value that rounding may change, for level 2; None takes what was measured.
        min_agreement: the part of the images for which bundle and reference must name the same class.
        deterministic_reference: level 3 compares with the exact evaluation instead, and logits must be equal bit for bit.
        state: level 3 keeps its totals in this file, and goes on from them if it exists.
        progress: called with a message after every batch.

    Raises:
        InputError: data that does not fit, too few samples, or options that exclude each other.
        ModelFileError: the ONNX file or the checkpoint cannot be used.
        BundleError: the bundle does not fit the model or the device, or is too old for the levels 1 and 2.
    """
    from bnn_deploy.devices.registry import get_device

    wanted = _wanted_levels(levels, onnx_path, deterministic_reference, bundle)
    chosen = device or get_device("local")
    source = onnx_path or golden
    if source is None:
        raise InputError("There is nothing to compare the bundle with; give the ONNX file, or a golden file.")
    progress(f"{source}: preparing the reference")
    table = open_table(bundle) if wanted - {3} else None
    compiled = None if onnx_path is None else CompiledFile(onnx_path, bundle)
    side = open_side(reference, compiled, bundle, weights=weights, golden=golden, data=data, samples=samples)
    check_shapes(side.input_shape, side.classes, bundle, source)
    count = side.dataset.number_asked(samples)
    warnings = _warnings(side, bundle, levels)
    # All that may fail is made before the device is taken.
    paths = None if compiled is None or table is None else compiled.paths(table)
    batches = [] if table is None else _batches(side, layer_samples, bundle.batch)
    evaluated = 1 in wanted or deterministic_reference
    network = None if compiled is None or not evaluated else compiled.exact_network(table)
    outcomes: list[LevelOutcome] = []
    model: ModelResult | None = None
    with chosen.open(bundle, threads, progress) as session:
        if table is not None:
            if 1 in wanted and network is not None:
                outcomes.append(_kernel_level(session, network, table, batches, bundle, progress))
            if 2 in wanted:
                # Of other references x and the bits are not of one evaluation, or x is not known.
                exact = paths.exact if paths is not None and reference == "onnxruntime" else None
                output = _output_name(table, bundle)
                layers = side.layers()
                outcomes.append(
                    compare_layers(
                        session, layers, table, batches, margin=margin, output=output, exact=exact, progress=progress
                    )
                )
        if 3 in wanted:
            if deterministic_reference and network is not None:
                side = replace(side, name=EXACT, run=network.run)
            comparison = _whole_model(session, side, bundle, count, chosen.name, state, progress)
            model = comparison.result(min_agreement, exact=deterministic_reference)
            warnings += comparison.warnings()
        boards = session.boards()
    results = tuple(_with_paths(outcome.result, paths, bundle) for outcome in outcomes)
    return ValidationReport(
        model_file=str(source),
        bundle=str(bundle.path),
        target=bundle.target,
        device=chosen.name,
        reference=f"{EXACT} of the compiled network" if deterministic_reference else reference,
        data=side.dataset.source,
        levels=results,
        model=model,
        warnings=(*warnings, *(warning for outcome in outcomes for warning in outcome.warnings)),
        boards=boards,
        zero_activations=None if model is None or side.zeros is None else side.zeros.to_dict(),
        margin=margin,
        passed=all(result.passed for result in results) and (model is None or model.passed),
    )


def _wanted_levels(
    levels: Collection[int], onnx_path: Path | None, deterministic_reference: bool, bundle: Bundle
) -> set[int]:
    """Those of the levels that are possible.

    Raises:
        InputError: none is, or the options exclude each other.
    """
    wanted = set(levels)
    if not wanted or not wanted <= set(LEVELS):
        raise InputError(
            f"There are the levels 1, 2 and 3; asked for: {', '.join(map(str, sorted(wanted))) or 'none'}."
        )
    if onnx_path is None:
        wanted.discard(1)
        if not wanted or deterministic_reference:
            raise InputError(
                "Level 1 and --deterministic-reference evaluate the ONNX file that the bundle was compiled from; give it."
            )
    if deterministic_reference and bundle.gpu is not None:
        raise InputError(
            f"{bundle.path} was compiled for {bundle.target}, whose kernels round otherwise than those of processors; leave "
            "--deterministic-reference out."
        )
    return wanted


def _warnings(side: Side, bundle: Bundle, levels: Collection[int]) -> list[str]:
    """What limits the result before anything has run, a sentence each."""
    found = [side.dataset.note] if side.dataset.note else []
    if side.onnx_path is not None:
        return [*found, *check_origin(side.onnx_path, bundle)]
    if 1 in levels:
        found.append("Level 1 was left out, for it needs the ONNX file; give it as well.")
    return found


def _with_paths(result: LevelResult, paths: GraphPaths | None, bundle: Bundle) -> LevelResult:
    """The result whose rows say what they are made by."""

    def fed_by(row: TensorResult) -> tuple[str, ...]:
        if paths is not None:
            return paths.fed_by(row.tensor)
        return row.fed_by or (tuple(bundle.steps[row.step].layer.split(" + ")) if row.step >= 0 else ())

    return replace(result, rows=tuple(replace(row, fed_by=fed_by(row)) for row in result.rows))


def _kernel_level(
    session: Session,
    network: ExactNetwork,
    table: TensorTable,
    batches: list[np.ndarray],
    bundle: Bundle,
    progress: ReportProgress,
) -> LevelOutcome:
    on_processor = bundle.gpu is None
    return compare_kernels(
        session,
        network,
        table,
        batches,
        float_margin=None if on_processor else GPU_MARGIN,
        # Thresholds next to forced values are for kernels that round alike.
        patterns=PATTERNS if on_processor else ("data",),
        progress=progress,
    )


def _output_name(table: TensorTable, bundle: Bundle) -> str:
    """The name that the ONNX file has for the logits; the bundle's own where they are no value of the file."""
    stored = (entry.tensor for entry in table.entries if any(place.space == "output" for place in entry.places))
    return next(stored, bundle.outputs[0].name)


def _batches(side: Side, layer_samples: int, unit: int) -> list[np.ndarray]:
    """The images of the levels 1 and 2 in batches of the bundle."""
    if layer_samples < 1:
        raise InputError(f"--layer-samples must be at least 1, got {layer_samples}.")
    dataset = side.dataset
    count = min(dataset.samples, -(-layer_samples // unit) * unit)
    return [fill_batch(images, unit) for images, _ in dataset.batches(unit, count)]


def _whole_model(
    session: Session,
    side: Side,
    bundle: Bundle,
    count: int,
    device: str,
    state: Path | None,
    progress: ReportProgress,
) -> Comparison:
    """Level 3."""
    # Whole batches of both, so that only the last ones have to be filled up.
    size = batch_size(side.input_shape, lcm(side.batch, bundle.batch))

    def run_bundle(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        return session.run_many(fill_batch(images, bundle.batch) for images in batches)

    kept = None
    if state is not None:
        from bnn_deploy.validation.resume import RunState, fingerprint

        identity = fingerprint(
            side.onnx_path,
            bundle,
            side.dataset,
            samples=count,
            batch=size,
            reference=side.name,
            device=device,
            others=side.identity,
        )
        kept = RunState(state, identity, side.kept())
    return compare(side.dataset, count, side.run, run_bundle, size, progress, kept)
