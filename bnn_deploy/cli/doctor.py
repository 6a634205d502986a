"""``bnn-deploy doctor``: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import click

from bnn_deploy.cli.options import format_option, print_result, table
from bnn_deploy.progress import status_line


@click.command("doctor", short_help="Check this machine: packages, linker, emulator, host target.")
@format_option
@click.pass_context
def doctor_command(context: click.Context, output_format: str) -> None:
    """Check this machine: packages, linker, emulator, host target, disk and memory.

    Two tiny C programs are compiled and run; the first time this can take two minutes. Exits with 2 when bnn-deploy
    cannot work here, and with 0 otherwise, warnings included.
    """
    from bnn_deploy.doctor import Check, Status, examine

    with status_line() as progress:
        checks = examine(progress)
    works = all(check.status is not Status.ERROR for check in checks)

    def text() -> str:
        def row(check: Check) -> tuple[str, str, str]:
            return (check.status.value, check.name, check.found)

        lines = [table(("status", "check", "found"), [row(check) for check in checks], left=3)]
        lines += [f"{check.name}: {check.advice}" for check in checks if check.advice]
        lines.append(
            "bnn-deploy can work here." if works else "bnn-deploy cannot work here until the errors above are gone."
        )
        return "\n".join(lines)

    print_result({"works": works, "checks": [check.to_dict() for check in checks]}, output_format, text)
    if not works:
        context.exit(2)
