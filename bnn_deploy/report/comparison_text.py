"""What became of a time between two profiles, for a terminal: the kernels that changed, and the verdict."""

from __future__ import annotations

from bnn_deploy.profiling.comparison import FASTER, SAME, SLOWER, BoardComparison, Change, Comparison
from bnn_deploy.report.text import layers_text, table

MARKS = {SLOWER: "SLOWER", FASTER: "faster", SAME: ""}


def comparison_text(comparison: Comparison) -> str:
    """Lines without the last line break."""
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
                layers_text(kernel.layer),
                kernel.kind,
                f"{kernel.us.before.median:.1f}",
                f"{kernel.us.after.median:.1f}",
                *_ratio(kernel.us),
                MARKS[kernel.us.verdict],
            )
            for kernel in marked
        ]
        lines += ["", table(("layer", "kind", "A us", "B us", "B / A", "interval", ""), rows, left=2), ""]
    counts = (
        f"{board.count(SLOWER)} slower, {board.count(FASTER)} faster, {board.count(SAME)} the same within the noise"
    )
    lines.append(f"kernels: {counts}")
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
