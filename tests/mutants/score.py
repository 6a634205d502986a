"""What share of the mutants was noticed, and the text about it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

KILLED, LATE, SURVIVED, UNREACHED = "killed", "late", "survived", "unreached"


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        outcome: KILLED; LATE, stopped at the limit, which counts as killed; SURVIVED; UNREACHED, no test runs the line.
        noticed: the test that failed, or how the run ended.
        tests: how many ran, at most.
    """

    path: str
    line: int
    kind: str
    difference: str
    outcome: str
    noticed: str
    tests: int
    seconds: float

    @property
    def killed(self) -> bool:
        return self.outcome in (KILLED, LATE)


def wilson(killed: int, count: int) -> tuple[float, float]:
    """The 95% interval of a share, after Wilson."""
    if not count:
        return 0.0, 1.0
    deviate = 1.959964
    share, square = killed / count, deviate**2 / count
    middle = share + square / 2
    spread = deviate * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, (middle - spread) / (1 + square)), min(1.0, (middle + spread) / (1 + square))


def score_line(name: str, results: Iterable[Result]) -> str:
    """``passes/relax  41 of 45 killed: 0.91 (0.79 to 0.96)``."""
    found = list(results)
    killed = sum(result.killed for result in found)
    low, high = wilson(killed, len(found))
    share = killed / max(1, len(found))
    return f"{name:44} {killed:4} of {len(found):4} killed: {share:.2f} ({low:.2f} to {high:.2f})"


def report(results: list[Result]) -> str:
    """The scores of all folders and files, then every survivor."""
    parts = [score_line("all", results), ""]
    folders = sorted({result.path.rpartition("/")[0] for result in results})
    tops = sorted({folder.partition("/")[0] for folder in folders})
    parts += [score_line(f"{top}/**", [r for r in results if r.path.startswith(f"{top}/")]) for top in tops]
    parts += [score_line(folder, [r for r in results if r.path.rpartition("/")[0] == folder]) for folder in folders]
    parts.append("")
    for path in sorted({result.path for result in results}):
        parts.append(score_line(path, [r for r in results if r.path == path]))
    survivors = [result for result in results if not result.killed]
    parts += ["", f"{len(survivors)} survived", ""]
    for result in survivors:
        reached = "no test runs this line" if result.outcome == UNREACHED else f"{result.tests} tests passed"
        parts += [f"== {result.path}:{result.line} {result.kind}; {reached}", result.difference, ""]
    return "\n".join(parts)
