"""``bnn-deploy inspect``: operations, parameters and layers of an ONNX file or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bnn_deploy.cli.options import FILE, format_option, print_result
from bnn_deploy.errors import listed
from bnn_deploy.report.text import size_text, table

COUNTS = ("bops", "flops", "binary_params", "real_params")
TOTALS = (
    ("BOPs", "bops", "multiply-accumulates on bits, one image"),
    ("FLOPs", "flops", "multiply-accumulates of real-valued layers, one image"),
    ("OPs", "ops", "BOPs / 64 + FLOPs"),
    ("binary params", "binary_params", "1 bit each"),
    ("real params", "real_params", "trained, without running statistics"),
)


@click.command("inspect", short_help="Count operations, parameters and bytes of a model or bundle.")
@click.argument("path", type=FILE, metavar="X.onnx|BUNDLE")
@format_option
def inspect_command(path: Path, output_format: str) -> None:
    """Count operations, parameters and bytes of an ONNX file or a bundle, in all and for every layer.

    As in the papers: one multiply-accumulate is one operation, BOPs are those of binary layers, FLOPs those of
    real-valued convolutions and fully connected layers, OPs = BOPs / 64 + FLOPs, all for one image.
    """
    from bnn_deploy.inspection import inspect

    result = inspect(path)
    print_result({"path": str(path), **result}, output_format, lambda: _text(result))


def _text(result: dict[str, Any]) -> str:
    header = ("layer", "op", "input", "output", "BOPs", "FLOPs", "binary params", "real params")
    rows = [
        (
            str(layer["name"]),
            str(layer["op"]),
            "x".join(map(str, layer["input_shape"])),
            "x".join(map(str, layer["output_shape"])),
            *(f"{layer[key]:,}" if layer[key] else "-" for key in COUNTS),
        )
        for layer in result["layers"]
    ]
    lines = [table(header, rows, left=4), ""]
    lines += [f"{label:<14}{result[key]:>16,.0f}  {meaning}" for label, key, meaning in TOTALS]
    if result["class_names"]:
        lines.append(f"classes: {len(result['class_names'])} ({listed(result['class_names'], longest=40)})")
    if "steps" not in result:
        return "\n".join([*lines, f"file: {size_text(result['file_bytes'])}"])
    sets = f", for {' and for '.join(result['kernel_sets'])} cores" if result["kernel_sets"] else ""
    files = ", ".join(f"{name} {size_text(size)}" for name, size in result["files"].items())
    return "\n".join(
        [
            *lines,
            f"target: {result['target']} ({result['architecture']}), {len(result['steps'])} kernel calls{sets}",
            f"memory: weights {size_text(result['weights_bytes'])}, activations {size_text(result['arena_bytes'])}, "
            f"workspace {size_text(result['workspace_bytes'])} for each thread; "
            f"with one thread {size_text(result['peak_bytes'])}",
            f"files: {files}",
        ]
    )
