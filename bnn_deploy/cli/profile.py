"""``bnn-deploy profile``: latency and the time of every kernel."""

from __future__ import annotations

from pathlib import Path

import click

from bnn_deploy.cli.options import FILE, device_options, format_option, print_result, threads_option, warn
from bnn_deploy.progress import status_line


@click.command("profile", short_help="Measure latency and the time of every kernel.")
@click.argument("bundle", type=FILE)
@device_options
@threads_option
@click.option(
    "--repeat",
    type=click.IntRange(1, 100000),
    show_default="half a second of them, 20 to 1000",
    metavar="N",
    help="Timed runs; comparing needs 6 or more.",
)
@click.option(
    "--warmup",
    type=click.IntRange(0, 100000),
    default=3,
    show_default=True,
    metavar="N",
    help="Runs before them that do not count.",
)
@click.option("--report", type=FILE, metavar="X.html", help="Write a page with charts that needs no network.")
@click.option("--png", type=FILE, metavar="X.png", help="Write the charts as a picture.")
@click.option("--trace", type=FILE, metavar="X.json", help="Write a time line for chrome://tracing and Perfetto.")
@click.option("--csv", type=FILE, metavar="X.csv", help="Write the kernels as a table.")
@format_option
def profile_command(
    bundle: Path,
    device: str,
    timeout: float,
    threads: int,
    repeat: int | None,
    warmup: int,
    report: Path | None,
    png: Path | None,
    trace: Path | None,
    csv: Path | None,
    output_format: str,
) -> None:
    """Run BUNDLE repeatedly; print its latency and the time of every kernel, slowest first.

    A kernel that computes several layers is printed under the first and the last of them; JSON has all names in full.
    Kernels that run block of rows by block of rows share the time of their stage in proportion to their own times.

    --format json prints what 'bnn-deploy compare' reads, next to whatever files are asked for.

    Times under --device qemu are those of an emulator: JSON says "emulated": true, and they are no latencies.
    """
    with status_line() as progress:
        from bnn_deploy.bundle.bundle import Bundle
        from bnn_deploy.devices.registry import get_device
        from bnn_deploy.profiling.measuring import profile_bundle
        from bnn_deploy.report.files import check_outputs, write_files
        from bnn_deploy.report.profile_files import profile_files
        from bnn_deploy.report.profile_text import profile_text

        check_outputs([path for path in (report, png, trace, csv) if path is not None])
        measured = profile_bundle(
            Bundle.open(bundle),
            get_device(device, timeout),
            threads=threads,
            repeat=repeat,
            warmup=warmup,
            progress=progress,
        )
        files = profile_files(measured, page=report, picture=png, trace=trace, csv=csv, progress=progress)
        write_files(files)
    for lost in measured.lost:
        warn(f"Without {lost.board}: {lost.reason}")
    for board in measured.boards:
        for remark in board.warnings:
            warn(f"{board.board}: {remark.text}" if len(measured.boards) > 1 else remark.text)
    print_result(measured.to_dict(), output_format, lambda: profile_text(measured))
