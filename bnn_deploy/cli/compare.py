"""``bnn-deploy compare``: is one profile slower than another?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnn_deploy.cli.layer_names import short_layers
from bnn_deploy.cli.options import FILE, format_option, print_result, table, warn
from bnn_deploy.progress import status_line

if TYPE_CHECKING:
    from bnn_deploy.profiling.comparison import BoardComparison, Change, Comparison

MARKS = {"regression": "SLOWER", "improvement": "faster", "same": ""}


@click.command("compare", short_help="Compare two profiles; exit with 1 on a regression.")
@click.argument("before", type=FILE, metavar="A.json")
@click.argument("after", type=FILE, metavar="B.json")
@click.option("--report", type=FILE, metavar="X.html", help="Write a page with charts of both that needs no network.")
@format_option
@click.pass_context
def compare_command(context: click.Context, before: Path, after: Path, report: Path | None, output_format: str) -> None:
    """Compare two profiles of the same network that 'bnn-deploy profile --format json' printed, B against A.

    Exits with 0 when B is nowhere slower than A beyond the noise, and with 1 when the latency of a board or a kernel is.
    """
    with status_line() as progress:
        from bnn_deploy.profiling.comparison import compare
        from bnn_deploy.profiling.reading import read_profile
        from bnn_deploy.report.files import check_outputs, write_files

        check_outputs([] if report is None else [report])
        profiles = read_profile(before), read_profile(after)
        comparison = compare(*profiles)
        if report is not None:
            from bnn_deploy.report.page import comparison_page

            progress(f"drawing {report}")
            write_files({report: comparison_page(*profiles, comparison)})
    for warning in comparison.warnings:
        warn(warning)
    print_result(comparison.to_dict(), output_format, lambda: _text(comparison))
    if comparison.regressed:
        context.exit(1)


def _text(comparison: Comparison) -> str:
    blocks = [_board(board, len(comparison.boards) > 1) for board in comparison.boards]
    verdict = "SLOWER: B has regressions beyond the noise" if comparison.regressed else "no regression beyond the noise"
    return "\n\n".join([*blocks, verdict])


def _board(board: BoardComparison, named: bool) -> str:
    lines = [f"{board.board_before}:"] if named else []
    lines.append(_latency(board))
    marked = board.changed()
    if marked:
        rows = [
            (
                short_layers(kernel.layer),
                kernel.kind,
                f"{kernel.us.before.median:.1f}",
                f"{kernel.us.after.median:.1f}",
                *_ratio(kernel.us),
                MARKS[kernel.us.verdict],
            )
            for kernel in marked
        ]
        lines += ["", table(("layer", "kind", "A us", "B us", "B / A", "interval", ""), rows, left=2), ""]
    same = len(board.kernels) - len(marked)
    lines.append(
        f"kernels: {board.count('regression')} slower, {board.count('improvement')} faster, {same} the same within the noise"
    )
    if board.only_before or board.only_after:
        lines.append(f"not matched: {len(board.only_before)} kernels of A, {len(board.only_after)} of B")
    return "\n".join(lines)


def _latency(board: BoardComparison) -> str:
    times = board.latency_ms
    before, after = times.before, times.after
    ratio, interval = _ratio(times)
    mark = MARKS[times.verdict] or "the same within the noise"
    what = "emulated time, no latency of a device" if board.emulated else "latency"
    return f"{what}: A {before.median:.4g} ms, B {after.median:.4g} ms, B / A {ratio} ({interval}): {mark}"


def _ratio(times: Change) -> tuple[str, str]:
    if times.ratio is None or times.interval is None:
        return "-", "-"
    return f"{times.ratio:.2f}", f"{times.interval[0]:.2f} to {times.interval[1]:.2f}"
