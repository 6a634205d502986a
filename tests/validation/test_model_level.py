"""The totals of level 3 against plain Python, image by image; and sums that no order of images changes."""

from __future__ import annotations

import json
from fractions import Fraction
from math import isfinite
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.checked_fields import Fields
from bnn_deploy.data.open_dataset import open_dataset
from bnn_deploy.validation.exact_sum import ExactSum
from bnn_deploy.validation.model_level import TOP, Comparison, wilson_interval
from bnn_deploy.validation.validate import validate

SUBNORMAL = float(np.float32(2) ** -149)
# Few different values, so that logits are often equal; and all kinds of them.
LOGIT = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.5, SUBNORMAL, -SUBNORMAL, 1e-3, 3e38, -3e38]) | st.floats(width=32)


def logits(images: int, classes: int) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(np.float32, (images, classes), elements=LOGIT)


def ranking(row: list[float]) -> list[int]:
    """Classes from the largest logit down; of equal ones the first comes first."""
    return sorted(range(len(row)), key=lambda index: (-row[index], index))


@given(images=st.integers(1, 6), classes=st.integers(1, 9), data=st.data(), labelled=st.booleans())
@settings(max_examples=150, deadline=None)
def test_totals(images: int, classes: int, data: st.DataObject, labelled: bool) -> None:
    """Breaks if any total is wrong for ties, NaN, infinities, zeros of either sign or subnormal logits, in any batches."""
    expected = data.draw(logits(images, classes))
    found = data.draw(st.just(expected.copy()) | logits(images, classes))
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images)))
    whole, parts = Comparison(), Comparison()
    whole.add(expected, found, labels if labelled else None)
    cut = data.draw(st.integers(0, images))
    for rows in filter(len, (np.arange(cut), np.arange(cut, images))):
        parts.add(expected[rows], found[rows], labels[rows] if labelled else None)
    assert parts == whole

    counts = dict.fromkeys(["agree", "five", "bits", "bad", "hit_e", "hit_f", "five_e", "five_f"], 0)
    errors: list[Fraction] = []
    for one, other, label in zip(expected.tolist(), found.tolist(), labels.tolist(), strict=True):
        finite_one, finite_other = all(map(isfinite, one)), all(map(isfinite, other))
        counts["bits"] += np.float32(one).tobytes() == np.float32(other).tobytes()
        counts["bad"] += not (finite_one and finite_other)
        if finite_one:
            counts["hit_e"] += ranking(one)[0] == label
            counts["five_e"] += label in ranking(one)[:TOP]
        if finite_other:
            counts["hit_f"] += ranking(other)[0] == label
            counts["five_f"] += label in ranking(other)[:TOP]
        if finite_one and finite_other:
            counts["agree"] += ranking(one)[0] == ranking(other)[0]
            counts["five"] += ranking(one)[0] in ranking(other)[:TOP]
            errors += [Fraction(abs(a - b)) for a, b in zip(one, other, strict=True)]
    result = whole.result(0.5)
    assert (result.samples, result.agreements, result.bit_identical) == (images, counts["agree"], counts["bits"])
    assert result.non_finite_samples == counts["bad"]
    assert result.passed == (counts["agree"] / images >= 0.5)
    assert result.max_abs_error == (float(max(errors)) if errors else None)
    # The mean of exact numbers, rounded once: equal, not close.
    assert result.mean_abs_error == (float(sum(errors) / len(errors)) if errors else None)
    top5 = classes > TOP
    assert result.top5_agreement == (counts["five"] / images if top5 else None)
    rates = (result.reference_top1, result.bundle_top1, result.reference_top5, result.bundle_top5)
    if not labelled:
        assert rates == (None,) * 4 and result.reference_top1_interval is result.bundle_top1_interval is None
        return
    assert rates[:2] == (counts["hit_e"] / images, counts["hit_f"] / images)
    assert rates[2:] == ((counts["five_e"] / images, counts["five_f"] / images) if top5 else (None, None))
    assert result.reference_top1_interval == wilson_interval(counts["hit_e"], images)
    assert result.bundle_top1_interval == wilson_interval(counts["hit_f"], images)


def test_sum_does_not_depend_on_order() -> None:
    """Breaks if the mean error of a resumed run differs in the last bit from that of one in one go."""
    numbers = np.abs(np.random.default_rng(0).standard_normal(5000)).astype(np.float32)
    numbers[::7] *= np.float32(2.0**-120)
    numbers[::11] *= np.float32(2.0**20)
    terms = numbers.astype(np.float64)
    forwards, backwards = ExactSum(), ExactSum()
    forwards.add(terms)
    for part in np.array_split(terms[::-1], 13):
        backwards.add(part)
    assert forwards == backwards
    assert Fraction(forwards.units, 2**149) == sum(map(Fraction, terms.tolist()))
    # Ordinary summation gives another result in each direction here, so the test can tell.
    assert sum(terms.tolist()) != sum(terms[::-1].tolist())


def test_state_is_exact() -> None:
    """Breaks if totals change by being stored."""
    generator = np.random.default_rng(1)
    comparison = Comparison()
    comparison.add(
        generator.standard_normal((9, 12), dtype=np.float32),
        generator.standard_normal((9, 12), dtype=np.float32),
        np.arange(9),
    )
    loaded = Comparison()
    loaded.load_state(Fields(json.loads(json.dumps(comparison.to_state())), ValueError))
    assert loaded == comparison and loaded.result() == comparison.result()


@pytest.mark.parametrize(
    "changes",
    [
        {"agreements": 10},
        {"samples": -1},
        {"samples": 1.0},
        {"labelled": True},
        {"bundle_hits": None},
        {"max_error": "nan"},
        {"max_error": "inf"},
        {"max_error": 1},
        {"error_units": "-0x1"},
        {"error_units": 5},
        {"error_units": "zz"},
        {"error_units": "0x" + "f" * 5000},
    ],
)
def test_nonsense_is_refused(changes: dict[str, object]) -> None:
    """Breaks if totals that cannot be are taken over."""
    comparison = Comparison(samples=9, agreements=5, classes=3)
    with pytest.raises(ValueError, match=r"."):
        Comparison().load_state(Fields(comparison.to_state() | changes, ValueError))


def test_wilson_interval() -> None:
    """Breaks if the interval is not Wilson's: the values are those of his formula at 95%, computed by hand."""
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.27753), abs=5e-6)
    assert wilson_interval(10, 10) == pytest.approx((0.72247, 1.0), abs=5e-6)
    assert wilson_interval(5, 10) == pytest.approx((0.23659, 0.76341), abs=5e-6)


def test_strange_inputs(tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Breaks if NaN or infinite pixels crash the run, count as agreement or go unsaid, or zeros and subnormals do not count."""
    ordinary = np.random.default_rng(0).standard_normal((1, 8, 8)).astype(np.float32)
    images = np.stack([ordinary] * 4 + [np.zeros_like(ordinary)] * 4)
    images[:4, 0, 3, 4] = np.nan, np.inf, -np.inf, SUBNORMAL
    images[4:] = np.array([0.0, -0.0, SUBNORMAL, -SUBNORMAL], np.float32)[:, None, None, None]
    np.savez(tmp_path / "x.npz", x=images, y=np.zeros(8, np.int64))
    read = np.concatenate([batch for batch, _ in open_dataset(tmp_path / "x.npz", (1, 8, 8), 10).batches(3)])
    np.testing.assert_array_equal(read.view(np.uint32), images.view(np.uint32))
    report = validate(tiny_onnx, Bundle.open(tiny_bundle), data=tmp_path / "x.npz", levels=(3,), min_agreement=0.5)
    assert report.model is not None and report.passed
    assert (report.model.samples, report.model.non_finite_samples, report.model.agreements) == (8, 3, 5)
    assert report.model.max_abs_error is not None and report.model.max_abs_error < 1e-3
    assert "3 samples have NaN or infinite logits and count as disagreements." in report.warnings
