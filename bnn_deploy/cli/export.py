"""``bnn-deploy export``: PyTorch -> ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from bnn_deploy.cli.options import FILE, format_option, note, print_result
from bnn_deploy.errors import listed
from bnn_deploy.models.names import MODEL_NAMES
from bnn_deploy.progress import status_line
from bnn_deploy.report.text import size_text

if TYPE_CHECKING:
    from bnn_deploy.weights.load_checkpoint import CheckpointReport


class BatchSize(click.ParamType):
    """A number from 1 to 4096, or "dynamic"."""

    name = "N|dynamic"

    def convert(self, value: int | str, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "dynamic" or (str(value).isascii() and str(value).isdigit() and 1 <= int(value) <= 4096):
            return value if value == "dynamic" else int(value)
        self.fail(f"{value!r} is neither a number from 1 to 4096 nor 'dynamic'.", param, ctx)


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
@click.option("--batch", type=BatchSize(), default="dynamic", show_default=True, help="Batch size of the file.")
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
    batch: int | str,
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
        export_model(
            built.module,
            output,
            input_shape=built.input_shape,
            batch="dynamic" if batch == "dynamic" else int(batch),
            metadata=built.metadata,
        )
    result = {
        "path": str(output),
        "file_bytes": output.stat().st_size,
        "model": model,
        "input_shape": list(built.input_shape),
        "batch": batch,
        "weights": built.metadata["bnn_deploy.weights"],
        "zero_weights": {},
        "ignored": [],
        "margin": None,
    }
    if built.checkpoint is not None:
        result["zero_weights"] = built.checkpoint.zero_weights
        result["ignored"] = list(built.checkpoint.ignored)
        for sentence in _checkpoint_notes(built.checkpoint, built.metadata["bnn_deploy.variant"], variant):
            note(sentence)
    if built.calibration is not None:
        smallest = built.calibration.smallest
        result["margin"] = {"layer": smallest.name, "relative": smallest.relative, "absolute": smallest.absolute}
        note(
            f"no --weights given: these are seeded (--seed {seed}), calibrated random weights, good for parity checks "
            f"and timing; smallest margin from a threshold: {smallest.relative:.1e} of the layer's root mean square, "
            f"at {smallest.name}."
        )
    shape = "x".join(str(side) for side in built.input_shape)
    print_result(
        result,
        output_format,
        lambda: f"{output}: {model}, input {shape}, batch {batch}, {size_text(output.stat().st_size)}",
    )


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
