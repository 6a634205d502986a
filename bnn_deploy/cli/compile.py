"""``bnn-deploy compile``: ONNX -> bundle."""

from __future__ import annotations

from pathlib import Path

import click

from bnn_deploy.cli.options import FILE, format_option, print_result, size_text
from bnn_deploy.progress import status_line


@click.command("compile", short_help="Compile an ONNX file to a bundle for one target.")
@click.argument("onnx", type=FILE, metavar="X.onnx")
@click.option("--target", required=True, metavar="T", help="One of the names that 'bnn-deploy targets' lists, or host.")
@click.option(
    "-o", "--output", type=FILE, required=True, metavar="BUNDLE", help="Folder to write; an older bundle is replaced."
)
@click.option(
    "--batch", type=click.IntRange(1, 4096), default=1, show_default=True, metavar="N", help="Images in one call."
)
@click.option("--dump-ir", type=FILE, metavar="DIR", help="Write the module after every pass to this folder.")
@click.option("--no-cache", is_flag=True, help="Generate all machine code anew, and do not keep it.")
@format_option
def compile_command(
    onnx: Path, target: str, output: Path, batch: int, dump_ir: Path | None, no_cache: bool, output_format: str
) -> None:
    """Compile X.onnx to a bundle: a folder with library, static runner, C header and manifest."""
    with status_line() as progress:
        progress("loading the compiler")
        from bnn_deploy.compiler import compile_model

        bundle = compile_model(
            onnx, target, output, batch=batch, dump_ir=dump_ir, cache=not no_cache, progress=progress
        )
    sizes = {name: entry["bytes"] for name, entry in bundle.manifest["files"].items()}
    result = {
        "path": str(output),
        "target": bundle.target,
        "architecture": bundle.architecture,
        "batch": batch,
        "file_bytes": sum(sizes.values()),
        "files": sizes,
    }
    print_result(
        result,
        output_format,
        lambda: (
            f"{output}: {bundle.target} ({bundle.architecture}), batch {batch}, {len(bundle.steps)} kernel calls, "
            + ", ".join(f"{name} {size_text(size)}" for name, size in sizes.items())
        ),
    )
