"""``bnn-deploy import``: any ONNX file -> ONNX with binary layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnn_deploy.cli.options import FILE, format_option, import_options, note, print_result
from bnn_deploy.progress import status_line
from bnn_deploy.report.import_text import import_notes, import_text
from bnn_deploy.report.text import size_text

if TYPE_CHECKING:
    from bnn_deploy.passes.onnx.import_report import SignZero, ZeroWeights


@click.command("import", short_help="Find the binary layers of any ONNX file and pack them.")
@click.argument("source", type=FILE, metavar="FILE.onnx")
@click.option("-o", "--output", type=FILE, required=True, metavar="X.onnx", help="File to write.")
@import_options
@format_option
def import_command(
    source: Path, output: Path, sign_zero: SignZero, zero_weights: ZeroWeights, explain: bool, output_format: str
) -> None:
    """Rewrite FILE.onnx, exported by plain torch.onnx.export, by Brevitas (QONNX) or by anything else, with its binary
    layers as nodes of the domain bnn_deploy and their weights packed.

    'bnn-deploy compile' does the same by itself. Layers that are not binary stay as they are; --explain says why.
    """
    with status_line() as progress:
        from bnn_deploy.files import require_writable

        require_writable(output)
        progress("loading the front end")
        from bnn_deploy.frontend.open_model import NothingBinaryError, import_file
        from bnn_deploy.passes.onnx.import_report import ImportOptions

        try:
            report = import_file(source, output, ImportOptions(sign_zero, zero_weights), progress)
        except NothingBinaryError as error:
            if explain:
                note(import_text(error.report))
            raise
    for line in import_notes(report):
        note(line)
    binary = len(report.binary_layers)
    result = {"path": str(output), "source": str(source), "file_bytes": output.stat().st_size, **report.to_dict()}
    summary = (
        f"{output}: {binary} of {len(report.layers)} layers binary, {size_text(output.stat().st_size)} "
        f"({source}: {size_text(source.stat().st_size)})"
    )
    print_result(result, output_format, lambda: f"{import_text(report)}\n\n{summary}" if explain else summary)
