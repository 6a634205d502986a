"""Profiles that say nothing about each other must not be compared, and others not without a word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from click.testing import Result

from bnn_deploy.errors import InputError
from bnn_deploy.plan import Step
from bnn_deploy.profiling.comparison import compare
from bnn_deploy.profiling.model import ProfileReport

Invoke = Callable[..., Result]
MakeReport = Callable[..., ProfileReport]


def test_refusals(make_report: MakeReport) -> None:
    """Breaks if profiles that say nothing about each other are compared."""
    times = np.full((8, 3), 1e-5)
    report = make_report(times)
    with pytest.raises(InputError, match="different networks: input 1x3x8x8 and 4x3x8x8"):
        compare(report, make_report(times, batch=4))
    with pytest.raises(InputError, match="different networks: model tiny and other"):
        compare(report, replace(report, model="other"))
    with pytest.raises(InputError, match=r"different networks: .* 3\.000 .* and .* 2\.000 million"):
        compare(report, make_report(times[:, :1], (Step("b", "layer.1", "binary", (), binary_macs=2_000_000),)))
    with pytest.raises(InputError, match=r"different networks: 1 layers .* or layers of other names"):
        compare(*(make_report(times[:, :1], (Step("b", name, "binary", (), binary_macs=9),)) for name in ("x", "y")))
    with pytest.raises(InputError, match="8 and 5 repeats"):
        compare(report, make_report(times[:5]))
    with pytest.raises(InputError, match="no board in common: a, b and c, d"):
        compare(make_report(times, boards=("a", "b")), make_report(times, boards=("c", "d")))


def test_boards_are_matched_by_name(make_report: MakeReport) -> None:
    """Breaks if one board of a fleet is compared with another, or one without a partner goes unmentioned."""
    before = make_report(np.full((8, 3), 1e-5), boards=("a", "b", "gone"))
    after = make_report(np.full((8, 3), 1e-5), boards=("b", "a"))
    after = replace(after, boards=(after.boards[0], make_report(np.full((8, 3), 2e-5), boards=("a",)).boards[0]))
    comparison = compare(before, after)
    verdicts = {board.board_after: board.latency_ms.verdict for board in comparison.boards}
    assert verdicts == {"a": "regression", "b": "same"}
    assert comparison.warnings[-1] == "Not compared, as only one profile has them: gone."


def test_differences_are_said(make_report: MakeReport) -> None:
    """Breaks if times of two targets, of other thread counts, or of an emulator are compared without a word."""
    report = make_report(np.full((8, 3), 1e-5))
    other = replace(make_report(np.full((8, 3), 1e-5), emulated=True), target="rpi4", threads=4)
    warnings = compare(report, other).warnings
    assert warnings[0] == "The profiles have different targets: arm64 and rpi4."
    assert warnings[1] == "The profiles have different numbers of threads: 1 and 4."
    # 8 runs of 31 us each are 0.25 ms; 20 ms need 646 of them.
    assert warnings[2].startswith("A: its 8 repeats took 0.25 ms together") and "--repeat 646." in warnings[2]
    assert warnings[4].startswith("B: These are times of the emulator")
    assert compare(report, other).boards[0].emulated and not compare(report, report).boards[0].emulated
