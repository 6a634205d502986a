"""``bnn-deploy compare``: is one profile slower than another?"""

from __future__ import annotations

from pathlib import Path

import click

from bnn_deploy.cli import EXIT_FAILED_CHECK
from bnn_deploy.cli.options import FILE, format_option, print_result, warn
from bnn_deploy.progress import status_line


@click.command("compare", short_help="Compare two profiles; exit with 1 on a regression.")
@click.argument("before", type=FILE, metavar="A.json")
@click.argument("after", type=FILE, metavar="B.json")
@click.option("--report", type=FILE, metavar="X.html", help="Write a page with charts of both that needs no network.")
@format_option
@click.pass_context
def compare_command(context: click.Context, before: Path, after: Path, report: Path | None, output_format: str) -> None:
    """Compare two profiles of the same network that 'bnn-deploy profile --format json' printed, B against A.

    Exits with 0 when B is nowhere slower than A beyond the noise, with 1 when the latency of a board or a kernel is, and
    with 2 when the two cannot be compared.
    """
    with status_line() as progress:
        from bnn_deploy.profiling.comparison import compare
        from bnn_deploy.profiling.reading import read_profile
        from bnn_deploy.report.comparison_text import comparison_text
        from bnn_deploy.report.files import check_outputs, write_files

        check_outputs([] if report is None else [report])
        profiles = read_profile(before), read_profile(after)
        comparison = compare(*profiles)
        if report is not None:
            from bnn_deploy.report.profile_page import comparison_page

            progress(f"drawing {report}")
            write_files({report: comparison_page(*profiles, comparison)})
    for warning in comparison.warnings:
        warn(warning)
    print_result(comparison.to_dict(), output_format, lambda: comparison_text(comparison))
    if comparison.regressed:
        context.exit(EXIT_FAILED_CHECK)
