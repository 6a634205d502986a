"""``bnn-deploy profile``: latency and the time of every kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnn_deploy.cli.layer_names import cut, printable, short_layers
from bnn_deploy.cli.options import FILE, device_options, format_option, print_result, table, threads_option, warn
from bnn_deploy.progress import status_line

if TYPE_CHECKING:
    from bnn_deploy.profiling import BoardReport, ProfileReport, Spread


@click.command("profile", short_help="Measure latency and the time of every kernel.")
@click.argument("bundle", type=FILE)
@device_options
@threads_option
@click.option(
    "--repeat",
    type=click.IntRange(1, 100000),
    metavar="N",
    help="Timed runs; comparing needs 6 or more.  [default: half a second of them, 20 to 1000]",
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
    Kernels that run block of rows by block of rows share the time of their stage, as their own times are.

    --format json prints what 'bnn-deploy compare' reads, next to whatever files are asked for.

    Times under --device qemu are those of an emulator: JSON says "emulated": true, and they are no latencies.
    """
    with status_line() as progress:
        from bnn_deploy.bundle.bundle import Bundle
        from bnn_deploy.devices.registry import get_device
        from bnn_deploy.profiling import profile_bundle
        from bnn_deploy.report.files import check_outputs, write_files

        check_outputs([path for path in (report, png, trace, csv) if path is not None])
        measured = profile_bundle(
            Bundle.open(bundle),
            get_device(device, timeout),
            threads=threads,
            repeat=repeat,
            warmup=warmup,
            progress=progress,
        )
        contents = {}
        if report is not None:
            from bnn_deploy.report.page import profile_page

            progress(f"drawing {report}")
            contents[report] = profile_page(measured)
        if png is not None:
            from bnn_deploy.report.picture import picture

            progress(f"drawing {png}")
            contents[png] = picture(measured)
        if trace is not None:
            from bnn_deploy.report.chrome_trace import chrome_trace

            contents[trace] = chrome_trace(measured)
        if csv is not None:
            from bnn_deploy.report.csv_table import csv_table

            contents[csv] = csv_table(measured)
        write_files(contents)
    for lost in measured.lost:
        warn(f"Without {lost.board}: {lost.reason}")
    for board in measured.boards:
        for remark in board.warnings:
            warn(f"{board.board}: {remark.text}" if len(measured.boards) > 1 else remark.text)
    print_result(measured.to_dict(), output_format, lambda: _text(measured))


def _text(report: ProfileReport) -> str:
    what = f"({report.repeat} x batch {report.batch}, threads: {report.threads}, {report.target} on {report.device})"
    if len(report.boards) == 1:
        (board,) = report.boards
        return "\n".join([_kernels(report.boards), "", f"{_latency(board)} {what}", *_summary(board)])
    rows = [
        (board.board, *_cells(board.latency_ms), str(len(board.warnings)) if board.warnings else "-")
        for board in report.boards
    ]
    emulated = "emulated times, no latencies " if any(board.emulated for board in report.boards) else ""
    lines = [_kernels(report.boards), "", f"{emulated}{what}"]
    lines.append(table(("board", "ms", "spread", "min", "90%", "warnings"), rows))
    return "\n".join(lines)


def _kernels(boards: Sequence[BoardReport]) -> str:
    """Slowest first; of several boards, the times of the one in the middle."""
    from statistics import median

    rows = []
    # One number for all boards only if they are alike.
    limits = {board.processor_gmacs_per_s for board in boards}
    limit = limits.pop() if len(limits) == 1 else None
    for calls in zip(*(board.kernels for board in boards), strict=True):
        us = median(call.us.median for call in calls)
        share = median(call.share for call in calls)
        first = calls[0]
        spread = max(call.us.relative_range for call in calls)
        rate = first.bmacs / us * 1e-3 if us else 0.0
        cells = (
            short_layers(first.layer),
            first.kind,
            cut(printable(first.name).removeprefix("bnn_kernel_"), 30),
            f"{us:.1f}",
            f"{100 * spread:.0f}%",
            f"{100 * share:.1f}%",
            f"{first.bmacs / 1e6:.3f}" if first.bmacs else "-",
            f"{rate:.1f}" if first.bmacs else "-",
            *([f"{100 * rate / limit:.0f}%" if first.bmacs else "-"] if limit else []),
        )
        rows.append((us, cells))
    rows.sort(key=lambda row: row[0], reverse=True)
    return table(
        ("layer", "kind", "kernel", "us", "spread", "share", "Mbmacs", "Gbmacs/s", *(["of limit"] if limit else [])),
        [cells for _, cells in rows],
        left=3,
    )


def _latency(board: BoardReport) -> str:
    times = board.latency_ms
    what = "emulated time, not a latency" if board.emulated else "latency"
    interval = "" if times.interval is None else f" (95%: {times.interval[0]:.4g} to {times.interval[1]:.4g})"
    return (
        f"{what}: median {times.median:.4g} ms{interval}, min {times.min:.4g}, 90th percentile {times.p90:.4g}, "
        f"spread {100 * times.relative_range:.0f}%"
    )


def _cells(times: Spread) -> tuple[str, ...]:
    return (
        f"{times.median:.4g}",
        f"{100 * times.relative_range:.0f}%",
        f"{times.min:.4g}",
        f"{times.p90:.4g}",
    )


def _summary(board: BoardReport) -> list[str]:
    shares = ", ".join(f"{kind} {100 * share:.0f}%" for kind, share in board.share_by_kind.items())
    lines = [f"kernel time: {shares}"]
    if board.binary_gmacs_per_s:
        part = 100 * board.binary_gmacs_per_s / board.fastest_gmacs_per_s
        line = (
            f"binary kernels: {board.binary_gmacs_per_s:.0f} Gbmacs/s together, {part:.0f}% of the fastest one's "
            f"{board.fastest_gmacs_per_s:.0f}"
        )
        if board.processor_gmacs_per_s:
            limited = "processor" if board.gpu is None else "GPU"
            line += f"; the {limited}'s limit is {board.processor_gmacs_per_s:.0f}"
        lines.append(line)
    return lines
