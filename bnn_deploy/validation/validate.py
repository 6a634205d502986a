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
from bnn_deploy.validation.kernel_level import LevelOutcome, compare_kernels
from bnn_deploy.validation.layer_level import compare_layers
from bnn_deploy.validation.model_level import compare
from bnn_deploy.validation.origin import check_origin, check_shapes, recorded_options
from bnn_deploy.validation.patterns import PATTERNS
from bnn_deploy.validation.report import LevelResult, ModelResult, TensorResult, ValidationReport
from bnn_deploy.validation.sides import EXACT, Side, open_side

if TYPE_CHECKING:
    from bnn_deploy.bundle.bundle import Bundle
    from bnn_deploy.devices.base import Device, Session
    from bnn_deploy.exact.network import ExactNetwork
    from bnn_deploy.frontend.open_model import OpenedModel
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
    side = open_side(reference, onnx_path, bundle, weights=weights, golden=golden, data=data, samples=samples)
    check_shapes(side.input_shape, side.classes, bundle, source)
    dataset = side.dataset
    count = dataset.samples if samples is None else samples
    if count > dataset.samples:
        raise InputError(
            f"{dataset.source}: holds {dataset.samples} images, fewer than --samples {count}; ask for fewer."
        )
    warnings = [dataset.note] if dataset.note else []
    warnings += check_origin(onnx_path, bundle) if onnx_path is not None else []
    if onnx_path is None and 1 in levels:
        warnings.append("Level 1 was left out, for it needs the ONNX file; give it as well.")

    opened = None
    if onnx_path is not None and (table is not None or deterministic_reference):
        from bnn_deploy.frontend.open_model import open_model

        opened = open_model(onnx_path, recorded_options(bundle))
    paths = None if opened is None or table is None else _paths(opened, table)
    evaluated = opened is not None and (1 in wanted or deterministic_reference)
    network = _exact_network(opened, bundle, table) if evaluated else None
    outcomes: list[LevelOutcome] = []
    model: ModelResult | None = None
    with chosen.open(bundle, threads, progress) as session:
        if table is not None:
            batches = _batches(side, layer_samples, bundle.batch)
            if network is not None and 1 in wanted:
                on_processor = bundle.gpu is None
                outcomes.append(
                    compare_kernels(
                        session,
                        network,
                        table,
                        batches,
                        float_margin=None if on_processor else GPU_MARGIN,
                        # Thresholds next to forced values are for kernels that round alike.
                        patterns=PATTERNS if on_processor else ("data",),
                        progress=progress,
                    )
                )
            if 2 in wanted:
                outcomes.append(
                    compare_layers(
                        session,
                        side.layers(),
                        table,
                        batches,
                        margin=margin,
                        output=_output_name(table, bundle),
                        # Of other references x and the bits are not of one evaluation, or x is not known.
                        exact=paths.exact if paths is not None and reference == "onnxruntime" else None,
                        progress=progress,
                    )
                )
        if 3 in wanted:
            exact = network if deterministic_reference else None
            model, more = _whole_model(session, side, exact, bundle, count, min_agreement, chosen.name, state, progress)
            warnings += more
        boards = session.boards()
    results = tuple(_with_paths(outcome.result, paths, bundle) for outcome in outcomes)
    return ValidationReport(
        model_file=str(source),
        bundle=str(bundle.path),
        target=bundle.target,
        device=chosen.name,
        reference=f"{EXACT} of the compiled network" if deterministic_reference else reference,
        data=dataset.source,
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


def _paths(opened: OpenedModel, table: TensorTable) -> GraphPaths:
    from bnn_deploy.validation.graph_paths import GraphPaths

    return GraphPaths(opened.model, table, opened.foreign)


def _with_paths(result: LevelResult, paths: GraphPaths | None, bundle: Bundle) -> LevelResult:
    """The result whose rows say what they are made by."""

    def fed_by(row: TensorResult) -> tuple[str, ...]:
        if paths is not None:
            return paths.fed_by(row.tensor)
        return row.fed_by or (tuple(bundle.steps[row.step].layer.split(" + ")) if row.step >= 0 else ())

    return replace(result, rows=tuple(replace(row, fed_by=fed_by(row)) for row in result.rows))


def _exact_network(opened: OpenedModel, bundle: Bundle, table: TensorTable | None) -> ExactNetwork:
    from bnn_deploy.exact.network import ExactNetwork
    from bnn_deploy.passes.pipeline import pack_network

    network = ExactNetwork(pack_network(opened.model, bundle.batch))
    if table is not None:
        network.follow({entry.key: entry.channels_last for entry in table.entries})
    return network


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
    exact: ExactNetwork | None,
    bundle: Bundle,
    count: int,
    min_agreement: float,
    device: str,
    state: Path | None,
    progress: ReportProgress,
) -> tuple[ModelResult, list[str]]:
    """Level 3, and its warnings; ``exact`` takes the reference's place."""
    # Whole batches of both, so that only the last ones have to be filled up.
    size = batch_size(side.input_shape, lcm(side.batch, bundle.batch))
    dataset = side.dataset

    def run_bundle(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        return session.run_many(fill_batch(images, bundle.batch) for images in batches)

    kept = None
    if state is not None:
        from bnn_deploy.validation.resume import RunState, fingerprint

        name = EXACT if exact is not None else side.name
        identity = fingerprint(
            side.onnx_path,
            bundle,
            dataset,
            samples=count,
            batch=size,
            reference=name,
            device=device,
            others=side.identity,
        )
        kept = RunState(state, identity, side.kept())
    run = side.run if exact is None else exact.run
    comparison = compare(dataset, count, run, run_bundle, size, progress, kept)
    result = comparison.result(min_agreement)
    if exact is not None and result.bit_identical != result.samples:
        result = replace(result, passed=False)
    return result, comparison.warnings()
