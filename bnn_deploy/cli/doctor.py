"""``bnn-deploy doctor``: what works on this machine or on a board, and what to do about the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnn_deploy.cli import EXIT_ERROR
from bnn_deploy.cli.options import FILE, format_option, print_result
from bnn_deploy.progress import ReportProgress, status_line

if TYPE_CHECKING:
    from bnn_deploy.doctor.report import DoctorReport

# A board that is slow to answer takes seconds: the probe is small, and does not wait for anything.
TIMEOUT_SECONDS = 120.0


@click.command("doctor", short_help="Check this machine, or a board: what works, what does not.")
@click.option(
    "--device",
    metavar="DEVICE",
    help="Check the boards of this device instead of what compiling takes here: local, qemu, ssh://user@host, …",
)
@click.option(
    "--bundle",
    type=FILE,
    metavar="BUNDLE",
    help="With --device: check also whether this bundle runs there, and whether another target suits the board better.",
)
@format_option
@click.pass_context
def doctor_command(context: click.Context, device: str | None, bundle: Path | None, output_format: str) -> None:
    """Check this machine: packages, linker, emulator, host target, ssh client, disk and memory.

    Two tiny C programs are compiled and run; the first time this can take two minutes. With --device, check a board instead:
    its system, processor, memory, clock, temperature and throttling, and whether BUNDLE runs there.

    Exits with 2 when bnn-deploy (or the bundle) cannot work there, and with 0 otherwise, warnings included.
    """
    if bundle is not None and device is None:
        raise click.UsageError("--bundle says what is to run on a board, so it needs --device as well.")
    with status_line() as progress:
        from bnn_deploy.report.doctor_text import doctor_text

        report = _examine(device, bundle, progress)
    print_result(report.to_dict(), output_format, lambda: doctor_text(report))
    if not report.works:
        context.exit(EXIT_ERROR)


def _examine(device: str | None, bundle: Path | None, progress: ReportProgress) -> DoctorReport:
    from bnn_deploy.doctor.boards import examine_device
    from bnn_deploy.doctor.this_machine import examine_this_machine

    if device is None:
        return examine_this_machine(progress)
    from bnn_deploy.bundle.bundle import Bundle
    from bnn_deploy.devices.registry import get_device

    opened = None if bundle is None else Bundle.open(bundle)
    progress(f"asking {device}")
    return examine_device(get_device(device, TIMEOUT_SECONDS), opened)
