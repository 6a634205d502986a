"""``bnn-deploy compile``: ONNX -> bundle."""

from __future__ import annotations

from pathlib import Path

import click

from bnn_deploy.cli.options import FILE, format_option, import_options, note, print_result
from bnn_deploy.progress import status_line
from bnn_deploy.report.import_text import import_notes, import_text
from bnn_deploy.report.text import size_text


@click.command("compile", short_help="Compile an ONNX file to a bundle for one target.")
@click.argument("onnx", type=FILE, metavar="X.onnx")
@click.option("--target", required=True, metavar="T", help="One of the names that 'bnn-deploy targets' lists, or host.")
@click.option("--arch", metavar="sm_XX", help="The GPU, with --target cuda.  [default: that of this machine]")
@click.option(
    "-o", "--output", type=FILE, required=True, metavar="BUNDLE", help="Folder to write; an older bundle is replaced."
)
@click.option(
    "--batch", type=click.IntRange(1, 4096), default=1, show_default=True, metavar="N", help="Images in one call."
)
@click.option("--dump-ir", type=FILE, metavar="DIR", help="Write the module after every pass to this folder.")
@click.option("--no-cache", is_flag=True, help="Generate all machine code anew, and do not keep it.")
@import_options
@format_option
def compile_command(
    onnx: Path,
    target: str,
    arch: str | None,
    output: Path,
    batch: int,
    dump_ir: Path | None,
    no_cache: bool,
    sign_zero: str,
    zero_weights: str,
    explain: bool,
    output_format: str,
) -> None:
    """Compile X.onnx to a bundle: a folder with library, static runner, C header and manifest.

    X.onnx comes from 'bnn-deploy export', or from anywhere else: its binary layers are then found as 'bnn-deploy import'
    finds them.
    """
    with status_line() as progress:
        progress("loading the compiler")
        from bnn_deploy.compiler import compile_model
        from bnn_deploy.passes.onnx.import_report import ImportOptions, ImportReport
        from bnn_deploy.targets.registry import get_target

        reports: list[ImportReport] = []
        bundle = compile_model(
            onnx,
            get_target(target, arch).name,
            output,
            batch=batch,
            options=ImportOptions(sign_zero, zero_weights),  # type: ignore[arg-type]
            dump_ir=dump_ir,
            cache=not no_cache,
            progress=progress,
            found=reports.append,
        )
    report = reports[0]
    for line in import_notes(report):
        note(line)
    sizes = {name: entry["bytes"] for name, entry in bundle.manifest["files"].items()}
    result = {
        "path": str(output),
        "target": bundle.target,
        "architecture": bundle.architecture,
        "batch": batch,
        "file_bytes": sum(sizes.values()),
        "files": sizes,
        "import": report.to_dict(),
    }
    summary = (
        f"{output}: {bundle.target} ({bundle.architecture}), batch {batch}, {len(bundle.steps)} kernel calls, "
        + ", ".join(f"{name} {size_text(size)}" for name, size in sizes.items())
    )
    print_result(result, output_format, lambda: f"{import_text(report)}\n\n{summary}" if explain else summary)
