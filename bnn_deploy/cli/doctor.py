"""``bnn-deploy doctor``: what works on this machine or on a board, and what to do about the rest."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnn_deploy.cli.options import FILE, format_option, print_result, table
from bnn_deploy.progress import ReportProgress, status_line

if TYPE_CHECKING:
    from bnn_deploy.doctor import BoardReport

# A board that is slow to answer takes seconds: the probe is small, and does not wait for anything.
TIMEOUT_SECONDS = 120.0


@click.command("doctor", short_help="Check this machine, or a board: what works, what does not.")
@click.option(
    "--device",
    metavar="DEVICE",
    help="Check the boards of this device instead of what compiling takes here: local, qemu, ssh://user@host, …",
)
@click.option(
    "--bundle", type=FILE, metavar="BUNDLE", help="With --device: does this bundle run there, and is it the best?"
)
@format_option
@click.pass_context
def doctor_command(context: click.Context, device: str | None, bundle: Path | None, output_format: str) -> None:
    """Check this machine: packages, linker, emulator, host target, ssh client, disk and memory.

    Two tiny C programs are compiled and run; the first time this can take two minutes. With --device, check a board instead:
    its system, processor, memory, clock, temperature and throttling, and whether BUNDLE runs there.

    Exits with 2 when bnn-deploy (or the bundle) cannot work there, and with 0 otherwise, warnings included.
    """
    from bnn_deploy.doctor import Status

    if bundle is not None and device is None:
        raise click.UsageError("--bundle says what is to run on a board, so it needs --device as well.")
    with status_line() as progress:
        reports = _reports(device, bundle, progress)
    works = all(check.status is not Status.ERROR for report in reports for check in report.checks)
    result = {
        "works": works,
        "checks": [{"board": report.board, **check.to_dict()} for report in reports for check in report.checks],
    }
    subject = "here" if device is None else f"on {device}"
    verdict = (
        f"bnn-deploy can work {subject}."
        if works
        else f"bnn-deploy cannot work {subject} until the errors above are gone."
    )

    def text() -> str:
        lines = []
        for report in reports:
            lines += [f"{report.board}:"] if device is not None else []
            lines += [*_lines(report), *([""] if len(reports) > 1 else [])]
        return "\n".join([*lines, verdict])

    print_result(result, output_format, text)
    if not works:
        context.exit(2)


def _reports(device: str | None, bundle: Path | None, progress: ReportProgress) -> list[BoardReport]:
    from bnn_deploy.doctor import BoardReport, examine, examine_device

    if device is None:
        return [BoardReport(platform.node(), tuple(examine(progress)))]
    from bnn_deploy.bundle.bundle import Bundle
    from bnn_deploy.devices.registry import get_device

    opened = None if bundle is None else Bundle.open(bundle)
    progress(f"asking {device}")
    return examine_device(get_device(device, TIMEOUT_SECONDS), opened)


def _lines(report: BoardReport) -> list[str]:
    rows = [(check.status.value, check.name, check.found) for check in report.checks]
    advice = [f"{check.name}: {check.advice}" for check in report.checks if check.advice]
    return [table(("status", "check", "found"), rows, left=3), *advice]
