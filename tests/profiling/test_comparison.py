"""``compare`` must call noise noise and a regression a regression."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from referencing import Registry, Resource

from bnn_deploy.plan import Step
from bnn_deploy.profiling.comparison import compare
from bnn_deploy.profiling.model import ProfileReport

Invoke = Callable[..., Result]
MakeReport = Callable[..., ProfileReport]
SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
BASE = np.array([1e-5, 3e-5, 2e-5])
OPPOSITE = {"same": "same", "regression": "improvement", "improvement": "regression"}

seeds = st.integers(0, 2**32 - 1)
repeats = st.integers(8, 60)


def noisy(seed: int, repeat: int, noise: float, base: np.ndarray = BASE) -> np.ndarray:
    """Times that scatter upwards, as those of a computer do."""
    scatter = np.random.default_rng(seed).exponential(noise, (repeat, len(base)))
    return base * (1 + scatter)


@given(seeds, repeats, st.floats(0, 1))
def test_the_same_run_is_never_marked(make_report: MakeReport, seed: int, repeat: int, noise: float) -> None:
    """Breaks if a profile compared with itself has changed, however noisy it is."""
    report = make_report(noisy(seed, repeat, noise))
    comparison = compare(report, report)
    (board,) = comparison.boards
    assert not comparison.regressed and board.latency_ms.verdict == "same"
    assert {kernel.us.verdict for kernel in board.kernels} == {"same"}
    assert board.latency_ms.ratio == 1


@given(seeds, seeds, repeats, repeats)
def test_half_as_slow_again_is_always_marked(
    make_report: MakeReport, first: int, second: int, repeat: int, other: int
) -> None:
    """Breaks if a factor of 1.5 goes unnoticed on a quiet machine, for the network or for any kernel."""
    before, after = make_report(noisy(first, repeat, 0.01)), make_report(1.5 * noisy(second, other, 0.01))
    comparison = compare(before, after)
    (board,) = comparison.boards
    assert comparison.regressed and board.latency_ms.verdict == "regression"
    assert [kernel.us.verdict for kernel in board.kernels] == ["regression"] * 3
    assert not compare(after, before).regressed
    assert compare(after, before).boards[0].latency_ms.verdict == "improvement"


@given(seeds, seeds, st.floats(0.5, 2), st.floats(0, 0.3))
def test_swapping_swaps_the_verdicts(
    make_report: MakeReport, first: int, second: int, factor: float, noise: float
) -> None:
    """Breaks if it depends on the order of the files whether something is a change."""
    before, after = make_report(noisy(first, 20, noise)), make_report(factor * noisy(second, 20, noise))
    there, back = compare(before, after).boards[0], compare(after, before).boards[0]
    for forth, opposite in zip(
        [there.latency_ms, *(kernel.us for kernel in there.kernels)],
        [back.latency_ms, *(kernel.us for kernel in back.kernels)],
        strict=True,
    ):
        assert OPPOSITE[forth.verdict] == opposite.verdict
        assert forth.ratio is not None and opposite.ratio is not None and forth.interval is not None
        assert forth.ratio * opposite.ratio == pytest.approx(1)
        assert forth.interval[0] <= forth.ratio <= forth.interval[1]


def test_one_kernel(make_report: MakeReport) -> None:
    """Breaks if the kernel that got slower is not the one that is named, or the ratio is upside down."""
    after = BASE * [1, 1, 1.5]
    comparison = compare(make_report(noisy(1, 20, 0.01)), make_report(noisy(2, 20, 0.01, after)))
    (board,) = comparison.boards
    assert [kernel.us.verdict for kernel in board.kernels] == ["same", "same", "regression"]
    assert board.kernels[2].layer == "head" and board.kernels[2].us.ratio == pytest.approx(1.5, rel=0.02)
    assert comparison.regressed


def test_drift_is_noise(make_report: MakeReport) -> None:
    """Breaks if a machine that changed by 20% while A was measured makes B, 10% apart, a regression."""
    drifting = np.repeat([[1.0], [1.2]], 20, axis=0) * BASE
    assert not compare(make_report(drifting), make_report(np.full((40, 1), 1.21) * BASE)).regressed


def test_faster_than_the_clock(make_report: MakeReport) -> None:
    """Breaks if a time of 0 divides by zero."""
    zero, one = make_report(np.zeros((8, 3))), make_report(np.full((8, 3), 1e-6))
    for comparison in (compare(zero, zero), compare(zero, one), compare(one, zero)):
        assert {kernel.us.verdict for kernel in comparison.boards[0].kernels} == {"same"}
        json.dumps(comparison.to_dict(), allow_nan=False)


def test_other_fusion(make_report: MakeReport) -> None:
    """Breaks if two targets that fuse layers differently cannot be compared, or kernels are matched with others."""
    work = Step("b", "layer.1", "binary", (), binary_macs=3_000_000)
    fused = Step("b", "layer.2 + add + norm", "binary", (), binary_macs=2_000_000)
    alone = Step("b", "layer.2", "binary", (), binary_macs=2_000_000)
    first = (Step("f", "stem", "float", ()), work, fused)
    second = (
        Step("f", "stem", "float", ()),
        Step("g", "stem", "float", ()),
        work,
        alone,
        Step("f", "add + norm", "float", ()),
    )
    (board,) = compare(make_report(np.full((8, 3), 1e-5), first), make_report(np.full((8, 5), 1e-5), second)).boards
    assert [(kernel.layer, kernel.step_before, kernel.step_after) for kernel in board.kernels] == [
        ("stem", 0, 0),
        ("layer.1", 1, 2),
    ]
    assert board.only_before == ("layer.2 + add + norm",) and board.only_after == ("stem", "layer.2", "add + norm")


def test_schema_describes_what_is_printed(make_report: MakeReport) -> None:
    """Breaks if docs/schemas/comparison.schema.json describes another format than the one that is printed."""
    schemas = {
        name: json.loads((SCHEMAS / name).read_text()) for name in ("comparison.schema.json", "profile.schema.json")
    }
    registry = Registry().with_resources((name, Resource.from_contents(schema)) for name, schema in schemas.items())
    validator = jsonschema.Draft202012Validator(schemas["comparison.schema.json"], registry=registry)
    zero, quick = make_report(np.zeros((8, 3))), make_report(np.full((8, 3), 1e-6))
    for before, after in (
        (quick, quick),
        (zero, quick),
        (make_report(noisy(1, 20, 0.01)), make_report(noisy(2, 20, 1.0))),
    ):
        document = json.loads(json.dumps(compare(before, after).to_dict()))
        validator.validate(document)
        document["boards"][0]["kernels"][0]["unknown"] = 1
        assert not validator.is_valid(document)


def test_command(make_report: MakeReport, invoke: Invoke, tmp_path: Path) -> None:
    """Breaks if a script cannot tell from the exit code whether B got slower, or the reader not where."""
    quick, slow = tmp_path / "quick.json", tmp_path / "slow.json"
    quick.write_text(json.dumps(make_report(noisy(1, 20, 0.01)).to_dict()))
    slow.write_text(json.dumps(make_report(noisy(2, 20, 0.01, BASE * [1, 1, 2])).to_dict()))
    assert invoke("compare", quick, quick).exit_code == 0
    result = invoke("compare", quick, slow)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "SLOWER: B has regressions beyond the noise"
    assert any(line.startswith("head ") and line.endswith("SLOWER") for line in result.stdout.splitlines())
    document = json.loads(invoke("compare", quick, slow, "--format", "json").stdout)
    assert document["regressed"] is True and document["boards"][0]["kernels"][2]["us"]["verdict"] == "regression"
    assert invoke("compare", slow, quick).exit_code == 0
    quick.write_text("{}")
    result = invoke("compare", quick, slow)
    assert result.exit_code == 2 and "is no profile" in result.stderr and result.stdout == ""
