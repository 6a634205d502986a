"""A profile for a terminal: the kernels, slowest first, and under them the latency of every board."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bnn_deploy.profiling.model import BoardReport, ProfileReport
from bnn_deploy.profiling.spread import Spread
from bnn_deploy.report.text import layers_text, short, table

KERNEL_WIDTH = 30


def profile_text(report: ProfileReport) -> str:
    """Lines without the last line break."""
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
            layers_text(first.layer),
            first.kind,
            short(first.name.removeprefix("bnn_kernel_"), KERNEL_WIDTH),
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
            line += f"; the {board.ran_on}'s limit is {board.processor_gmacs_per_s:.0f}"
        lines.append(line)
    return lines
