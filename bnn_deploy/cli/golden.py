"""``bnn-deploy golden``: record what a model computes, to compare bundles with later and elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnn_deploy.cli.options import FILE, format_option, import_choices, print_result, reference_options, warn
from bnn_deploy.progress import status_line
from bnn_deploy.report.text import size_text

if TYPE_CHECKING:
    from bnn_deploy.references.golden import Golden


@click.command("golden", short_help="Record images, logits and the bits of every layer.")
@click.argument("onnx", type=FILE, metavar="X.onnx")
@click.option("-o", "--output", type=FILE, required=True, metavar="G.npz", help="File to write.")
@reference_options
@click.option(
    "--data",
    type=FILE,
    metavar="DATA",
    help="Images as for validate. The default: the inputs X.onnx was calibrated on.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    metavar="N",
    help="Record the first N images; the default is 8, or all inputs X.onnx was calibrated on.",
)
@import_choices
@format_option
def golden_command(
    onnx: Path,
    output: Path,
    reference: str,
    weights: Path | None,
    data: Path | None,
    samples: int | None,
    sign_zero: Any,
    zero_weights: Any,
    output_format: str,
) -> None:
    """Run a reference on some images and record its logits and the bits of every binarisation.

    `bnn-deploy validate --golden G.npz` compares a bundle with them, on a machine without PyTorch and onnxruntime.
    """
    with status_line() as progress:
        from bnn_deploy.passes.onnx.import_report import ImportOptions
        from bnn_deploy.references.golden_recording import record_golden

        golden = record_golden(
            onnx,
            output,
            reference=reference,
            data=data,
            samples=samples,
            weights=weights,
            options=ImportOptions(sign_zero=sign_zero, zero_weights=zero_weights),
            progress=progress,
        )
    for sentence in golden.values.notes:
        warn(sentence)
    result = _summary(golden)
    print_result(result, output_format, lambda: _text(golden, result))


def _summary(golden: Golden) -> dict[str, Any]:
    signs = golden.values.signs.values()
    return {
        "output": str(golden.path),
        "bytes": golden.path.stat().st_size,
        "onnx_sha256": golden.header.onnx_sha256,
        "reference": golden.header.reference,
        "data": golden.header.data,
        "images": golden.header.images,
        "labelled": golden.header.labelled,
        "layers": len(signs),
        "values": sum(sign.values.size for sign in signs),
        "within_margin": sum(len(sign.within()) for sign in signs),
    }


def _text(golden: Golden, result: dict[str, Any]) -> str:
    return (
        f"{golden.path}: {size_text(result['bytes'])}, {result['images']} images ({result['data']}) in {result['reference']}, "
        f"{result['values']} values of {result['layers']} binarised layers, of which {result['within_margin']} within the "
        "rounding margin of a threshold"
    )
