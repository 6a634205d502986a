"""``bnn-deploy export``: PyTorch -> ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bnn_deploy.cli.options import FILE, format_option, note, print_result
from bnn_deploy.errors import listed
from bnn_deploy.metadata import entries
from bnn_deploy.models.names import MODEL_NAMES
from bnn_deploy.progress import status_line
from bnn_deploy.report.text import size_text

if TYPE_CHECKING:
    from bnn_deploy.export.provenance import BuiltModel
    from bnn_deploy.weights.load_checkpoint import CheckpointReport


def batch_size(text: str) -> int | Literal["dynamic"]:
    """A number from 1 to 4096, or "dynamic"."""
    if text == "dynamic":
        return "dynamic"
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 4096):
        raise click.BadParameter(f"{text!r} is neither a number from 1 to 4096 nor 'dynamic'.")
    return int(text)


@click.command("export", short_help="Write a PyTorch model of this package as ONNX.")
@click.argument("model", type=click.Choice(MODEL_NAMES), metavar="MODEL")
@click.option("-o", "--output", type=FILE, required=True, metavar="X.onnx", help="File to write.")
@click.option(
    "--weights",
    type=FILE,
    metavar="FILE",
    help="Trained weights: PyTorch (.pt, .pth), .safetensors, MindSpore .ckpt or .npz.",
)
@click.option(
    "--zero-weights",
    type=click.Choice(["error", "-1"]),
    default="error",
    show_default=True,
    help="What becomes of binary weights in FILE that are exactly 0.",
)
@click.option("--variant", type=click.Choice(["paper", "released"]), help="BiMLP only; the default is paper.")
@click.option("--num-classes", type=click.IntRange(1), metavar="N", help="The default is the model's own.")
@click.option(
    "--input-size", type=click.IntRange(1), metavar="N", help="Height and width; the default is the model's own."
)
@click.option(
    "--batch",
    type=batch_size,
    default="dynamic",
    show_default=True,
    metavar="N|DYNAMIC",
    help="Batch size of the file.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of random weights.",
)
@format_option
def export_command(
    model: str,
    output: Path,
    weights: Path | None,
    zero_weights: Literal["error", "-1"],
    variant: str | None,
    num_classes: int | None,
    input_size: int | None,
    batch: int | Literal["dynamic"],
    seed: int,
    output_format: str,
) -> None:
    """Write MODEL as ONNX with packed binary layers, readable by every ONNX runtime.

    MODEL is one of bimlp_s bimlp_m bcdnet_a bcdnet_b bcdnet_a_r18 bcdnet_b_r18 reactnet_a reactnet_r18 bimlp_tiny
    bcdnet_tiny. Without --weights it gets seeded random weights, calibrated so that on two known inputs every
    activation keeps a margin from its threshold: enough to check parity and measure speed, no use for recognition.
    """
    with status_line() as progress:
        from bnn_deploy.files import require_writable

        require_writable(output)
        progress("loading PyTorch")
        from bnn_deploy.export.export_model import export_model
        from bnn_deploy.export.provenance import build

        progress(f"building {model}")
        built = build(
            model,
            variant=variant,
            num_classes=num_classes,
            input_size=input_size,
            seed=seed,
            weights=weights,
            zero_weights=zero_weights,
        )
        progress(f"exporting {model} to {output}")
        export_model(built.module, output, input_shape=built.input_shape, batch=batch, metadata=built.metadata)
    if built.checkpoint is not None:
        for sentence in _checkpoint_notes(built.checkpoint, built.metadata[entries.VARIANT], variant):
            note(sentence)
    if built.calibration is not None:
        smallest = built.calibration.smallest
        note(
            f"no --weights given: these are seeded (--seed {seed}), calibrated random weights, good for parity checks "
            f"and timing; smallest margin from a threshold: {smallest.relative:.1e} of the layer's root mean square, "
            f"at {smallest.name}."
        )
    result, shape = _result(output, batch, built), "x".join(str(side) for side in built.input_shape)
    print_result(
        result,
        output_format,
        lambda: f"{output}: {model}, input {shape}, batch {batch}, {size_text(result['file_bytes'])}",
    )


def _result(output: Path, batch: int | Literal["dynamic"], built: BuiltModel) -> dict[str, Any]:
    checkpoint, calibration = built.checkpoint, built.calibration
    return {
        "path": str(output),
        "file_bytes": output.stat().st_size,
        "model": built.metadata[entries.MODEL],
        "input_shape": list(built.input_shape),
        "batch": batch,
        "weights": built.metadata[entries.WEIGHTS],
        "zero_weights": {} if checkpoint is None else checkpoint.zero_weights,
        "ignored": [] if checkpoint is None else list(checkpoint.ignored),
        "margin": None
        if calibration is None
        else {
            "layer": calibration.smallest.name,
            "relative": calibration.smallest.relative,
            "absolute": calibration.smallest.absolute,
        },
    }


def _checkpoint_notes(checkpoint: CheckpointReport, built_variant: str, asked_variant: str | None) -> list[str]:
    """What the user should be told about the weights of a file."""
    notes = []
    if checkpoint.zero_weights:
        layers = ", ".join(f"{count} in {name}" for name, count in checkpoint.zero_weights.items())
        notes.append(f"binary weights that are exactly 0 were taken as -1: {layers}.")
    if checkpoint.ignored:
        notes.append(f"the file holds more than weights, which was not used: {listed(checkpoint.ignored)}.")
    if checkpoint.from_mindspore and built_variant == "paper" and asked_variant is None:
        notes.append(
            "the weights have MindSpore's names, and the published ones belong to the released code, which computes "
            "otherwise than the paper; --variant released builds that, --variant paper silences this note."
        )
    return notes
