"""across: one model in several places, compared bit for bit; the devices are fakes that compute what they are told to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.errors import InputError, TargetError
from bnn_deploy.report.across_text import across_text
from bnn_deploy.validation import across as module
from bnn_deploy.validation.across import across


def logits(images: np.ndarray) -> np.ndarray:
    """Ten numbers of each image, none of them 0."""
    return images.reshape(len(images), -1)[:, :10] + np.float32(100)


class FakeDevice:
    """Gives ``logits`` of what it gets, or something else by its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sessions = 0

    @contextmanager
    def open(self, bundle: Bundle, threads: int, progress: object) -> Iterator[FakeDevice]:
        self.sessions += 1
        self.threads = threads
        yield self

    def run_many(self, arrays: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for number, images in enumerate(arrays):
            assert len(images) % 2 == 0, "the bundle's batch is 2"
            result = logits(images)
            if number == 0 and (self.name == "wrong" or (self.name == "unsteady" and self.sessions % 2 == 0)):
                result[1, 3] = np.nextafter(np.nextafter(result[1, 3], np.float32(np.inf)), np.float32(np.inf))
            yield result


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    monkeypatch.setattr(module, "get_device", FakeDevice)
    bundle = Bundle.open(tiny_bundle)
    monkeypatch.setattr("bnn_deploy.compiler.compile_model", lambda *arguments, **options: bundle)


def run(*places: str, threads: tuple[int, ...] = (1,)) -> module.AcrossReport:
    return across(Path("x.onnx"), places, samples=3, batch=2, threads=threads)


@pytest.mark.usefixtures("places")
def test_equal_bits(tiny_bundle: Path) -> None:
    """Breaks: equal places are told apart, a number of threads is left out, or the digest is of something else."""
    report = run("host", "qemu", threads=(1, 3))
    assert report.passed
    assert [(r.place, r.device, r.threads) for r in report.runs] == [
        (place, device, threads) for place, device in (("host", "local"), ("qemu", "qemu")) for threads in (1, 3)
    ]
    images = np.random.default_rng(0).standard_normal(
        (3, *Bundle.open(tiny_bundle).inputs[0].shape[1:]), dtype=np.float32
    )
    assert {r.sha256 for r in report.runs} == {hashlib.sha256(logits(images).tobytes()).hexdigest()}
    assert report.to_dict()["schema"] == "bnn-deploy/across/1"
    assert report.to_dict()["passed"] is True
    assert "all logits are the same bits" in across_text(report)


@pytest.mark.usefixtures("places")
def test_other_bits_are_counted() -> None:
    """Breaks: a difference of two units in the last place of one logit passes, or is measured wrongly."""
    report = run("host", "x86-64-v3@wrong")
    assert not report.passed
    first, second = report.runs
    assert first.equal and first.largest_ulps == 0
    assert (second.equal, second.repeatable, second.differing_images, second.largest_ulps) == (False, True, 1, 2)
    assert "1 of 3 images differ, by at most 2 ULP" in across_text(report)


@pytest.mark.usefixtures("places")
def test_runs_that_differ_fail() -> None:
    """Breaks: a place that gives other bits every other time passes, since its first run is right."""
    report = run("host", "x86-64-v3@unsteady")
    assert not report.passed
    assert (report.runs[1].repeatable, report.runs[1].equal) == (False, False)
    assert report.runs[1].sha256 == report.runs[0].sha256
    assert "two runs differ" in across_text(report)


def test_distances() -> None:
    """Breaks: distances across zero, of infinities or of NaN are wrong."""
    one, tiny = np.float32(1), np.float32(1e-45)
    pairs = [(one, np.nextafter(one, np.float32(2)), 1), (tiny, -tiny, 2), (np.float32(0), np.float32(-0.0), 0)]
    pairs += [(np.float32(np.nan), -np.float32(np.nan), 0), (np.float32(np.inf), np.finfo(np.float32).max, 1)]
    for first, second, expected in pairs:
        assert module._largest_ulps(np.array([first]), np.array([second])) == expected, (first, second)


@pytest.mark.parametrize("place", ["nowhere", "@local", "x86-64-v3@", "x86-64-v3@nothing"])
def test_places_that_are_none(place: str) -> None:
    """Breaks: a mistyped place is found only after the others were compiled and run."""
    with pytest.raises(InputError, match=r"host|no device"):
        across(Path("missing.onnx"), ["host", place])


def test_other_mistakes() -> None:
    """Breaks: no place, the same one twice, an unknown target or no threads pass for a comparison."""
    for places, threads in (([], (1,)), (["host", "host"], (1,)), (["host"], ()), (["host"], (0,))):
        with pytest.raises(InputError):
            across(Path("missing.onnx"), places, threads=threads)
    with pytest.raises(TargetError):
        across(Path("missing.onnx"), ["x86-64-v9@local"])
