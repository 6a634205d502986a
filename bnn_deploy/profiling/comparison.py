"""Is one profile slower than another, or is it noise?

The rule, the same for the latency and for every kernel: B differs from A when

1. their 95% intervals of the median do not touch. Two runs of the same thing do that by chance in fewer than 1% of cases
   (for normal times: the medians lie more than 2 * 1.96 standard errors apart, of a difference whose own standard error is
   sqrt(2) times that, and P(|z| > 2.77) = 0.6%); and
2. the medians differ by more than a bound, in either direction by the same factor. The bound is the largest of a fixed one
   and the drift within either run, which is how far that machine moves away from itself. The fixed ones are there
   because two processes differ by more than the repeats within one: memory lies elsewhere, the clock is another.
   docs/reports.md has the measurements that they come from; and
3. for kernels, that difference is at least ``LEAST_OF_LATENCY`` of the latency: below it the user cannot notice, and
   the time is mostly that of reading the clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from bnn_deploy.errors import InputError
from bnn_deploy.profiling.model import BoardReport, KernelTime, ProfileReport
from bnn_deploy.profiling.spread import FEWEST_FOR_INTERVAL, Spread

LEAST_LATENCY_CHANGE = 0.05
LEAST_KERNEL_CHANGE = 0.10
LEAST_OF_LATENCY = 0.005

# Repeats that took less than this together are all in one state of a machine whose states change by then.
SHORTEST_SECONDS = 0.02

SAME, SLOWER, FASTER = "same", "regression", "improvement"


@dataclass(frozen=True)
class Change:
    """One time in both profiles.

    Attributes:
        before, after: in A and in B, in the same unit.
        ratio: median of B over that of A, None if that is 0; above 1 is slower.
        interval: of the ratio, at least 90%: from the low end of B over the high end of A to the opposite; None likewise.
        verdict: "regression", "improvement" or "same".
    """

    before: Spread
    after: Spread
    ratio: float | None
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True)
class KernelChange:
    """One kernel call in both profiles: the same layer and kind, at the same place among the calls of that layer.

    Attributes:
        step_before, step_after: its place in the order of execution.
    """

    step_before: int
    step_after: int
    layer: str
    kind: str
    name_before: str
    name_after: str
    us: Change


@dataclass(frozen=True)
class BoardComparison:
    """One board in both profiles.

    Attributes:
        board_before, board_after: their names.
        emulated: one of them is an emulator's, so that neither its times nor the ratios are a device's.
        latency_ms: of the whole network.
        kernels: those in both, in A's order of execution.
        only_before, only_after: layers of the kernel calls that only one of them has (another target fuses differently).
    """

    board_before: str
    board_after: str
    emulated: bool
    latency_ms: Change
    kernels: tuple[KernelChange, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    def count(self, verdict: str) -> int:
        """Kernels of that verdict."""
        return sum(kernel.us.verdict == verdict for kernel in self.kernels)

    def changed(self) -> list[KernelChange]:
        """The kernels that are not the same, those with the largest difference of time first."""
        found = [kernel for kernel in self.kernels if kernel.us.verdict != SAME]
        return sorted(found, key=lambda kernel: -abs(kernel.us.after.median - kernel.us.before.median))


@dataclass(frozen=True)
class Comparison:
    """Result of ``compare``.

    Attributes:
        boards: those in both profiles.
        warnings: what else differs between the two, or stands against them.
    """

    boards: tuple[BoardComparison, ...]
    warnings: tuple[str, ...]

    @property
    def regressed(self) -> bool:
        """B is slower somewhere: in the latency of a board or in a kernel."""
        return any(board.latency_ms.verdict == SLOWER or board.count(SLOWER) for board in self.boards)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "format": "bnn_deploy.comparison",
            "format_version": 1,
            "regressed": self.regressed,
            "boards": [asdict(board) for board in self.boards],
            "warnings": list(self.warnings),
        }


def compare(before: ProfileReport, after: ProfileReport) -> Comparison:
    """Compare two profiles of the same network, board by board.

    A single board is compared with a single board whatever they are called; boards of fleets by name.

    Raises:
        InputError: they measured different networks or batches, have no board in common, or too few repeats.
    """
    _check_comparable(before, after)
    if len(before.boards) == len(after.boards) == 1:
        pairs = [(before.boards[0], after.boards[0])]
    else:
        others = {board.board: board for board in after.boards}
        pairs = [(board, others[board.board]) for board in before.boards if board.board in others]
    if not pairs:
        raise InputError(
            f"The profiles have no board in common: {_names(before.boards)} and {_names(after.boards)}; compare profiles of "
            "the same boards, or of one board each."
        )
    return Comparison(
        tuple(_compare_boards(a, b) for a, b in pairs), (*_differences(before, after), *_left_out(before, after, pairs))
    )


def change(before: Spread, after: Spread, least: float, least_difference: float = 0.0) -> Change:
    """Judge one time by the rule above.

    Args:
        before, after: with intervals.
        least: relative change that counts at all.
        least_difference: difference of the medians that counts at all, in their unit.
    """
    assert before.interval is not None and after.interval is not None
    if not before.median or not before.interval[0] or not after.interval[0]:
        # Faster than the clock can tell.
        return Change(before, after, None, None, SAME)
    ratio = after.median / before.median
    interval = (after.interval[0] / before.interval[1], after.interval[1] / before.interval[0])
    quick, slow = sorted((before, after), key=lambda spread: spread.median)
    assert quick.interval is not None and slow.interval is not None
    factor = 1 + max(least, abs(before.drift), abs(after.drift))
    apart = quick.interval[1] < slow.interval[0] and slow.median / quick.median > factor
    verdict = SAME
    if apart and slow.median - quick.median >= least_difference:
        verdict = SLOWER if slow is after else FASTER
    return Change(before, after, ratio, interval, verdict)


def _compare_boards(before: BoardReport, after: BoardReport) -> BoardComparison:
    latency = change(before.latency_ms, after.latency_ms, LEAST_LATENCY_CHANGE)
    least_us = LEAST_OF_LATENCY * 1e3 * min(before.latency_ms.median, after.latency_ms.median)
    partners = defaultdict(list)
    for step, kernel in enumerate(after.kernels):
        partners[kernel.layer, kernel.kind].append((step, kernel))
    both: list[KernelChange] = []
    alone: list[KernelTime] = []
    for step, kernel in enumerate(before.kernels):
        found = partners[kernel.layer, kernel.kind]
        if not found:
            alone.append(kernel)
            continue
        step_after, partner = found.pop(0)
        judged = change(kernel.us, partner.us, LEAST_KERNEL_CHANGE, least_us)
        both.append(KernelChange(step, step_after, kernel.layer, kernel.kind, kernel.name, partner.name, judged))
    left = [kernel.layer for kernels in partners.values() for _, kernel in kernels]
    return BoardComparison(
        before.board,
        after.board,
        before.emulated or after.emulated,
        latency,
        tuple(both),
        tuple(kernel.layer for kernel in alone),
        tuple(left),
    )


def _check_comparable(before: ProfileReport, after: ProfileReport) -> None:
    for what, a, b in (
        ("input", "x".join(map(str, before.input_shape)), "x".join(map(str, after.input_shape))),
        ("model", before.model or "a model without a name", after.model or "a model without a name"),
    ):
        if a != b:
            raise InputError(f"The profiles are of different networks: {what} {a} and {b}; compare two of the same.")
    first, second = before.boards[0], after.boards[0]
    same_layers = _working(first) <= _layers(second) and _working(second) <= _layers(first)
    if _bmacs(first) != _bmacs(second) or not same_layers:
        raise InputError(
            f"The profiles are of different networks: {_work_text(first)}, and {_work_text(second)}, or layers of other "
            "names; compare two of the same model."
        )
    if min(before.repeat, after.repeat) < FEWEST_FOR_INTERVAL or not (_judgeable(before) and _judgeable(after)):
        raise InputError(
            f"The profiles have {before.repeat} and {after.repeat} repeats, and noise can be told from change only with "
            f"{FEWEST_FOR_INTERVAL} or more; measure with more --repeat."
        )


def _judgeable(report: ProfileReport) -> bool:
    times = (
        spread for board in report.boards for spread in (board.latency_ms, *(kernel.us for kernel in board.kernels))
    )
    return all(spread.interval is not None for spread in times)


def _bmacs(board: BoardReport) -> int:
    return sum(kernel.bmacs for kernel in board.kernels)


def _layers(board: BoardReport) -> set[str]:
    return {name for kernel in board.kernels for name in kernel.layer.split(" + ")}


def _working(board: BoardReport) -> set[str]:
    """Layers of the binary kernels, or all if there are none.

    Targets fuse other layers into them, and so no two need have the same; but what one has, the other has somewhere.
    """
    kernels = [kernel for kernel in board.kernels if kernel.bmacs] or board.kernels
    return {name for kernel in kernels for name in kernel.layer.split(" + ")}


def _work_text(board: BoardReport) -> str:
    return f"{len(_layers(board))} layers with {_bmacs(board) / 1e6:.3f} million binary multiply-accumulates"


def _differences(before: ProfileReport, after: ProfileReport) -> list[str]:
    found = []
    for what, a, b in (
        ("targets", before.target, after.target),
        ("devices", before.device, after.device),
        ("numbers of threads", str(before.threads), str(after.threads)),
        ("versions of bnn-deploy", before.version, after.version),
        ("weights or exports of the model", before.model_sha256[:12], after.model_sha256[:12]),
    ):
        if a != b:
            found.append(f"The profiles have different {what}: {a or 'unknown'} and {b or 'unknown'}.")
    for letter, report in (("A", before), ("B", after)):
        for board in report.boards:
            name = f"{letter} ({board.board})" if len(report.boards) > 1 else letter
            seconds = report.repeat * board.latency_ms.median * 1e-3
            if 0 < seconds < SHORTEST_SECONDS:
                found.append(
                    f"{name}: its {report.repeat} repeats took {1e3 * seconds:.2g} ms together, so that whatever else the "
                    f"machine did in that moment counts; measure with --repeat {ceil(SHORTEST_SECONDS / seconds * report.repeat)}."
                )
            found += [f"{name}: {remark.text}" for remark in board.warnings]
    return found


def _left_out(
    before: ProfileReport, after: ProfileReport, pairs: Sequence[tuple[BoardReport, BoardReport]]
) -> list[str]:
    compared = {board.board for pair in pairs for board in pair}
    left = [board for board in (*before.boards, *after.boards) if board.board not in compared]
    return [f"Not compared, as only one profile has them: {_names(left)}."] if left else []


def _names(boards: Sequence[BoardReport]) -> str:
    return ", ".join(board.board for board in boards)
