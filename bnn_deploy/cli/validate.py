"""``bnn-deploy validate``: does a bundle compute what the model computes?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnn_deploy.cli.options import FILE, device_options, format_option, print_result, threads_option, warn
from bnn_deploy.progress import status_line

if TYPE_CHECKING:
    from bnn_deploy.devices import BoardUse
    from bnn_deploy.validation import ValidationReport

# Names in one line of text; the JSON has all.
MOST_LAYERS = 5


@click.command("validate", short_help="Compare a bundle with PyTorch or onnxruntime.")
@click.argument("onnx", type=FILE, metavar="X.onnx")
@click.option("--bundle", type=FILE, required=True, metavar="B", help="Bundle compiled from X.onnx.")
@click.option(
    "--reference",
    type=click.Choice(["onnxruntime", "torch"]),
    default="onnxruntime",
    show_default=True,
    help="Run X.onnx in onnxruntime, or the PyTorch model that it was exported from.",
)
@click.option(
    "--weights", type=FILE, metavar="FILE", help="For --reference torch: the weights that X.onnx was exported with."
)
@click.option(
    "--data",
    type=FILE,
    metavar="FILE.npz|DIR",
    help="Images x and optional labels y, or a folder of such files. The default: the inputs X.onnx was calibrated on.",
)
@click.option("--samples", type=click.IntRange(1), metavar="N", help="Compare the first N images; the default is all.")
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    metavar="F",
    help="Exit with 1 when the top-1 agreement is below this part of 1.",
)
@device_options
@threads_option
@format_option
@click.pass_context
def validate_command(
    context: click.Context,
    onnx: Path,
    bundle: Path,
    reference: str,
    weights: Path | None,
    data: Path | None,
    samples: int | None,
    min_agreement: float,
    device: str,
    timeout: float,
    threads: int,
    output_format: str,
) -> None:
    """Run BUNDLE and a reference on the same images and compare their logits and top-1 classes.

    Of equal logits the first counts as top-1; a sample with a NaN or infinite logit never agrees. Exits with 0 when the
    top-1 agreement reaches --min-agreement, and with 1 when it does not.
    """
    with status_line() as progress:
        from bnn_deploy.bundle import Bundle
        from bnn_deploy.devices import get_device
        from bnn_deploy.validation import validate

        report = validate(
            onnx,
            Bundle.open(bundle),
            reference=reference,
            data=data,
            samples=samples,
            device=get_device(device, timeout),
            threads=threads,
            weights=weights,
            min_agreement=min_agreement,
            progress=progress,
        )
    for warning in report.warnings:
        warn(warning)
    print_result(report.to_dict(), output_format, lambda: _text(report))
    if not report.passed:
        context.exit(1)


def _text(report: ValidationReport) -> str:
    model = report.model
    assert model is not None
    low, high = model.top1_agreement_interval
    lines = [
        f"{report.target} on {report.device} against {report.reference}, data: {report.data}",
        f"top-1 agreement  {model.top1_agreement:.4%} ({model.agreements} of {model.samples}; 95% interval "
        f"{low:.2%} to {high:.2%})",
    ]
    if model.max_abs_error is not None and model.mean_abs_error is not None:
        lines.append(f"logit error      max {model.max_abs_error:.3g}, mean {model.mean_abs_error:.3g}")
    if model.reference_top1 is not None and model.bundle_top1 is not None:
        lines.append(f"top-1 accuracy   reference {model.reference_top1:.2%}, bundle {model.bundle_top1:.2%}")
    lines += [f"board            {_board(use)}" for use in report.boards]
    if report.zero_activations is not None:
        lines.append(f"sign(0)          {_zeros(report.zero_activations)}")
    verdict = "passed" if model.passed else "FAILED"
    lines.append(f"{verdict}: at least {model.min_agreement:.4%} agreement was asked for")
    return "\n".join(lines)


def _board(use: BoardUse) -> str:
    text = f"{use.board}: {use.images} images in {use.seconds:.1f} s"
    return f"{text}, lost: {use.lost}" if use.lost else text


def _zeros(counted: dict[str, Any]) -> str:
    """Such as "3 of 10.2M binarised values were exactly at the threshold (the file says 0, the bundle -1): stage.3.sign 3"."""
    met = sorted((layer for layer in counted["layers"] if layer["zeros"]), key=lambda layer: -layer["zeros"])
    bundle = "/".join(f"{value:+d}" for value in sorted({layer["bundle"] for layer in counted["layers"]}))
    text = (
        f"{counted['zeros'] or 'none'} of {_count(counted['compared'])} binarised values "
        f"{'was' if counted['zeros'] < 2 else 'were'} exactly at the threshold (the file says 0, the bundle {bundle})"
    )
    names = [f"{layer['name']} {layer['zeros']}" for layer in met[:MOST_LAYERS]]
    names += [f"and {len(met) - MOST_LAYERS} more layers"] * (len(met) > MOST_LAYERS)
    return f"{text}: {', '.join(names)}" if names else text


def _count(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
