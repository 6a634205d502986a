"""Options and output that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

FILE = click.Path(path_type=Path)

format_option: Decorator = click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print the result.",
)


def reference_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--reference`` and ``--weights``: what says what is right."""
    for option in (
        click.option(
            "--weights",
            type=FILE,
            metavar="FILE",
            help="For --reference torch: the weights that X.onnx was exported with.",
        ),
        click.option(
            "--reference",
            type=click.Choice(["onnxruntime", "torch"]),
            default="onnxruntime",
            show_default=True,
            help="Run X.onnx in onnxruntime, or the PyTorch model that it was exported from.",
        ),
    ):
        command = option(command)
    return command


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--device`` and ``--timeout``: where to run, and how long to wait for it."""
    for option in (
        click.option(
            "--timeout",
            type=click.FloatRange(1, 86400),
            default=600,
            show_default=True,
            metavar="S",
            help="Seconds that one batch, or one profile, may take on the device.",
        ),
        click.option(
            "--device",
            default="local",
            show_default=True,
            metavar="DEVICE",
            help="Where to run: local; ssh://[USER@]HOST[:PORT]; rpc://HOST:PORT (TVM's RPC server); tracker://HOST:PORT/KEY (all "
            "boards of a key of TVM's tracker); or qemu (emulated arm64: right answers, meaningless times).",
        ),
    ):
        command = option(command)
    return command


threads_option: Decorator = click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="Threads that one inference may use.",
)


def import_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``import_choices`` and ``--explain``."""
    return import_choices(
        click.option("--explain", is_flag=True, help="List every layer: binary or not, and why not.")(command)
    )


def import_choices(command: Callable[..., Any]) -> Callable[..., Any]:
    """The choices that a foreign graph leaves, see ``passes.onnx.import_report``."""
    for option in (
        click.option(
            "--zero-weights",
            type=click.Choice(["error", "-1", "float"]),
            default="error",
            show_default=True,
            help="Weights that are exactly 0 in a binary layer: refuse the model, take them as -1 (as the papers do), or "
            "keep the layer real-valued.",
        ),
        click.option(
            "--sign-zero",
            type=click.Choice(["auto", "-1", "0", "+1"]),
            default="auto",
            show_default=True,
            help="Where the graph says sign(0) = 0: 0 does just that, with three values (slower); -1 or +1 changes it; auto "
            "takes -1 where only rounding could bring a 0 about, else 0.",
        ),
    ):
        command = option(command)
    return command


def print_result(result: dict[str, Any], output_format: str, text: Callable[[], str]) -> None:
    """Print to stdout: ``result`` as JSON, or what ``text`` returns."""
    click.echo(json.dumps(result, indent=2, allow_nan=False) if output_format == "json" else text())


def warn(message: str) -> None:
    """One line on stderr that does not stop the command."""
    click.echo(f"warning: {message}", err=True)


def note(message: str) -> None:
    """One line of information on stderr."""
    click.echo(f"note: {message}", err=True)
