"""``bnn-deploy validate``: does a bundle compute what the model computes?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bnn_deploy.cli import EXIT_FAILED_CHECK
from bnn_deploy.cli.options import (
    FILE,
    device_options,
    format_option,
    print_result,
    reference_options,
    threads_option,
    warn,
)
from bnn_deploy.errors import InputError
from bnn_deploy.progress import status_line

# What --across has no use for: it compiles the model itself, and asks for equal bits.
_NOT_ACROSS = (
    *("golden", "weights", "level", "layer_samples", "margin", "min_agreement", "deterministic_reference", "resume"),
    *("report", "all_layers", "device", "timeout", "threads", "reference"),
)


@click.command("validate", short_help="Compare a bundle with PyTorch, onnxruntime or a golden file.")
@click.argument("onnx", type=FILE, metavar="[X.onnx]", required=False)
@click.option("--bundle", type=FILE, metavar="B", help="Bundle compiled from X.onnx.")
@click.option(
    "--level",
    type=click.IntRange(1, 3),
    multiple=True,
    metavar="1|2|3",
    help="1: each kernel against an exact evaluation; 2: each layer, given the reference's inputs; 3: the logits. May be given "
    "several times; the default is all three.",
)
@reference_options
@click.option(
    "--golden",
    type=FILE,
    metavar="G.npz",
    help="Compare with what `bnn-deploy golden` recorded instead; without X.onnx, level 1 is left out.",
)
@click.option(
    "--data",
    type=FILE,
    metavar="digits|DIR|FILE.npz",
    help="scikit-learn's digits; a folder of pictures, one sub-folder for each class; images x and optional labels y, or a folder "
    "of such files. The default: the inputs X.onnx was calibrated on.",
)
@click.option(
    "--samples", type=click.IntRange(1), metavar="N", help="Level 3 compares the first N images; the default is all."
)
@click.option(
    "--layer-samples",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Images of the levels 1 and 2, rounded up to whole batches.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1),
    metavar="F",
    help="Level 2: the part of a layer's largest value that rounding may change. The default is measured for each layer.",
)
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    metavar="F",
    help="Level 3: exit with 1 when the top-1 agreement is below this part of 1.",
)
@click.option(
    "--deterministic-reference",
    is_flag=True,
    help="Level 3: compare with an exact evaluation in the order of the kernels; every bit of the logits must be equal.",
)
@click.option(
    "--resume",
    type=FILE,
    metavar="STATE",
    help="Level 3 keeps its totals in this file, and goes on from there after an interruption.",
)
@click.option(
    "--across",
    metavar="PLACES",
    help="Compile X.onnx for several places, such as host,qemu or x86-64-v3@local, and compare their logits bit for bit; "
    "needs no bundle.",
)
@click.option(
    "--report",
    type=FILE,
    multiple=True,
    metavar="FILE",
    help="Write a report as well: .html (a page with charts), .json, .md or .xml (JUnit). May be given several times.",
)
@click.option("--all-layers", is_flag=True, help="List the layers that are right as well.")
@device_options
@threads_option
@format_option
@click.pass_context
def validate_command(
    context: click.Context,
    onnx: Path | None,
    bundle: Path | None,
    level: tuple[int, ...],
    reference: str,
    weights: Path | None,
    golden: Path | None,
    data: Path | None,
    samples: int | None,
    layer_samples: int,
    margin: float | None,
    min_agreement: float,
    deterministic_reference: bool,
    resume: Path | None,
    across: str | None,
    report: tuple[Path, ...],
    all_layers: bool,
    device: str,
    timeout: float,
    threads: int,
    output_format: str,
) -> None:
    """Compare what BUNDLE computes with a reference: its kernels, its layers, and the whole of it.

    Exits with 0 when every level passes, and with 1 when one does not. Of equal logits the first counts as top-1; a
    sample with a NaN or infinite logit never agrees.
    """
    if across is not None:
        _across(context, onnx, bundle, across, data, samples, output_format)
        return
    if bundle is None:
        raise InputError("There is nothing to validate; give --bundle B, or --across PLACES.")
    if golden is not None and _given(context, "reference"):
        raise InputError(f"--golden {golden} takes the place of --reference; leave one of them out.")
    with status_line() as progress:
        from bnn_deploy.bundle.bundle import Bundle
        from bnn_deploy.devices.registry import get_device
        from bnn_deploy.report import validation_files
        from bnn_deploy.report.files import check_outputs, write_files
        from bnn_deploy.report.validation_text import validation_text
        from bnn_deploy.validation.validate import validate

        for path in report:
            validation_files.check(path)
        check_outputs(report)
        found = validate(
            onnx,
            Bundle.open(bundle),
            reference=reference if golden is None else "golden",
            golden=golden,
            data=data,
            samples=samples,
            device=get_device(device, timeout),
            threads=threads,
            weights=weights,
            levels=level or (1, 2, 3),
            layer_samples=layer_samples,
            margin=margin,
            min_agreement=min_agreement,
            deterministic_reference=deterministic_reference,
            state=resume,
            progress=progress,
        )
        write_files({path: validation_files.contents(found, path) for path in report})
    for warning in found.warnings:
        warn(warning)
    print_result(found.to_dict(), output_format, lambda: validation_text(found, all_layers))
    if not found.passed:
        context.exit(EXIT_FAILED_CHECK)


def _across(
    context: click.Context,
    onnx: Path | None,
    bundle: Path | None,
    places: str,
    data: Path | None,
    samples: int | None,
    output_format: str,
) -> None:
    useless = [name for name in _NOT_ACROSS if _given(context, name)]
    if onnx is None or bundle is not None or useless:
        option = f"--{useless[0].replace('_', '-')}" if useless else "--bundle"
        raise InputError(
            f"--across compiles X.onnx itself and compares bits; give X.onnx, and leave {option} out."
            if onnx is not None
            else "--across compiles X.onnx for every place; give it."
        )
    with status_line() as progress:
        from bnn_deploy.report.across_text import across_text
        from bnn_deploy.validation.across import across

        found = across(onnx, places.split(","), data=data, samples=samples, progress=progress)
    print_result(found.to_dict(), output_format, lambda: across_text(found))
    if not found.passed:
        context.exit(EXIT_FAILED_CHECK)


def _given(context: click.Context, name: str) -> Any:
    """Whether the user gave this parameter."""
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
