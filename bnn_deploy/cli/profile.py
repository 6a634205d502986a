"""``bnn-deploy profile``: latency and the time of every kernel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnn_deploy.cli.options import FILE, device_options, format_option, print_result, table, threads_option, warn
from bnn_deploy.progress import status_line

if TYPE_CHECKING:
    from bnn_deploy.profiling import ProfileReport


@click.command("profile", short_help="Measure latency and the time of every kernel.")
@click.argument("bundle", type=FILE)
@device_options
@threads_option
@click.option(
    "--repeat",
    type=click.IntRange(1, 100000),
    default=20,
    show_default=True,
    metavar="N",
    help="Timed runs, after 3 untimed.",
)
@format_option
def profile_command(bundle: Path, device: str, timeout: float, threads: int, repeat: int, output_format: str) -> None:
    """Run BUNDLE repeatedly; print its latency and the time of every kernel, slowest first.

    A kernel that computes several layers is printed under the first and the last of them; JSON has all names in full.
    Kernels that run block of rows by block of rows share the time of their stage, as their own times are.

    Times under --device qemu are those of an emulator: JSON says "emulated": true, and they are no latencies.
    """
    from bnn_deploy.bundle import Bundle
    from bnn_deploy.devices import get_device
    from bnn_deploy.profiling import EMULATION_WARNING, profile_bundle

    with status_line() as progress:
        progress(f"{bundle}: {repeat} runs on {device}")
        report = profile_bundle(Bundle.open(bundle), get_device(device, timeout), threads=threads, repeat=repeat)
    if report.emulated:
        warn(EMULATION_WARNING)
    print_result(report.to_dict(), output_format, lambda: _text(report))


def _text(report: ProfileReport) -> str:
    total = sum(kernel.us for kernel in report.kernels) or 1.0
    rows = [
        (
            _layers(kernel.layer),
            kernel.kind,
            _cut(kernel.name.removeprefix("bnn_kernel_"), 30),
            f"{kernel.us:.1f}",
            f"{100 * kernel.us / total:.1f}%",
            f"{kernel.bmacs / 1e6:.3f}" if kernel.bmacs else "-",
            f"{kernel.gmacs_per_s:.1f}" if kernel.bmacs else "-",
        )
        for kernel in sorted(report.kernels, key=lambda kernel: kernel.us, reverse=True)
    ]
    what = "emulated time, not a latency" if report.emulated else "latency"
    times = report.latency_ms
    shares = ", ".join(f"{kind} {100 * share:.0f}%" for kind, share in report.share_by_kind.items())
    return "\n".join(
        [
            table(("layer", "kind", "kernel", "us", "share", "Mbmacs", "Gbmacs/s"), rows, left=3),
            "",
            f"{what}: median {times.median:.3f} ms, min {times.min:.3f}, 90th percentile {times.p90:.3f} "
            f"({report.repeat} x batch {report.batch}, threads: {report.threads}, {report.target} on {report.device})",
            f"kernel time: {shares}",
            *_binary_summary(report),
        ]
    )


def _binary_summary(report: ProfileReport) -> list[str]:
    if not report.binary_gmacs_per_s:
        return []
    part = 100 * report.binary_gmacs_per_s / report.fastest_gmacs_per_s
    return [
        f"binary kernels: {report.binary_gmacs_per_s:.0f} Gbmacs/s together, {part:.0f}% of the fastest one's "
        f"{report.fastest_gmacs_per_s:.0f}"
    ]


def _layers(names: str) -> str:
    first, *rest = names.split(" + ")
    return _cut(first, 40) if not rest else f"{_cut(first, 30)} … {_cut(rest[-1], 30)} ({1 + len(rest)})"


def _cut(text: str, width: int) -> str:
    # The end of a module path tells more than its beginning.
    return text if len(text) <= width else "…" + text[1 - width :]
