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
from dataclasses import asdict, dataclass
from typing import Any

from bnn_deploy.profiling.comparability import check_comparable, differences, left_out, pairs_of_boards
from bnn_deploy.profiling.model import BoardReport, KernelTime, ProfileReport
from bnn_deploy.profiling.spread import Spread

LEAST_LATENCY_CHANGE = 0.05
LEAST_KERNEL_CHANGE = 0.10
LEAST_OF_LATENCY = 0.005

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
        """As JSON (docs/schemas/comparison.schema.json)."""
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
    check_comparable(before, after)
    pairs = pairs_of_boards(before, after)
    warnings = (*differences(before, after), *left_out(before, after, pairs))
    return Comparison(tuple(_compare_boards(a, b) for a, b in pairs), warnings)


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
