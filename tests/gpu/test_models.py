"""Whole models on the GPU of this machine: their bundles' logits, two at once, times of steps, and data that is on the GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from benchmarks.cuda_driver import Driver
from bnn_deploy.runtime.loader import Model
from tests.gpu.models import Ready
from tests.test_zoo import agree

pytestmark = pytest.mark.gpu

MODELS = ("bimlp_tiny", "bcdnet_tiny", "bcdnet_a")
# Runs that meet each other; inputs that differ make a buffer that is shared show.
RUNS = 20


@pytest.fixture(scope="module", params=MODELS)
def ready(request: pytest.FixtureRequest, prepare: Callable[[str], Ready]) -> Ready:
    """One of the models."""
    return prepare(request.param)


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    """The GPU."""
    opened = Driver()
    yield opened
    opened.close()


def test_logits(ready: Ready) -> None:
    """The bundle classifies differently than PyTorch and onnxruntime, or logits differ by more than rounding explains."""
    agree(ready.alone, ready.exported.logits)
    session = onnxruntime.InferenceSession(ready.exported.path, providers=["CPUExecutionProvider"])
    agree(ready.alone, session.run(None, {"input": ready.exported.images})[0])


def test_runs_are_equal_bit_for_bit(ready: Ready) -> None:
    """A kernel reads what it or another one has yet to write: results depend on the order in which threads run."""
    model = Model(ready.bundle)
    for _ in range(RUNS):
        np.testing.assert_array_equal(model(ready.exported.images), ready.alone)


def test_two_models_at_once(ready: Ready) -> None:
    """Two models in one process share memory of the GPU, or runs on their streams disturb each other."""
    other_images = np.ascontiguousarray(ready.exported.images[::-1])
    models = Model(ready.bundle), Model(ready.bundle)
    other = models[1](other_images)
    assert not np.array_equal(other, ready.alone)

    def runs(model: Model, images: np.ndarray) -> list[np.ndarray]:
        return [model(images) for _ in range(RUNS)]

    with ThreadPoolExecutor(2) as pool:
        results = pool.map(runs, models, (ready.exported.images, other_images))
        for expected, arrays in zip((ready.alone, other), results, strict=True):
            for array in arrays:
                np.testing.assert_array_equal(array, expected)


def test_times_of_steps(ready: Ready) -> None:
    """A step's time is not taken, or is of other work than the step's: together they are longer than the whole run."""
    steps, totals = Model(ready.bundle).profile(ready.exported.images, repeat=5, warmup=2)
    assert steps.shape == (5, len(ready.bundle.steps))
    assert (steps > 0).all()
    assert (steps.sum(axis=1) < totals).all()


def test_data_on_the_gpu(ready: Ready, driver: Driver) -> None:
    """bnn_run_device computes something else on the caller's memory and stream than bnn_run does, or keeps no order there."""
    library, model = ctypes.CDLL(str(ready.bundle.library)), ctypes.c_void_p()
    library.bnn_run_device.argtypes = [ctypes.c_void_p] * 4
    library.bnn_destroy.argtypes, library.bnn_device_error.restype = [ctypes.c_void_p], ctypes.c_char_p
    assert library.bnn_create(1, ctypes.byref(model)) == 0, library.bnn_device_error()
    result = np.full_like(ready.alone, np.nan)
    source, target = driver.allocate(ready.exported.images.nbytes), driver.allocate(result.nbytes)
    driver.upload(target, result)
    driver.upload(source, ready.exported.images)
    inputs, outputs = (ctypes.c_uint64 * 1)(source), (ctypes.c_uint64 * 1)(target)
    # The first run's result is fetched in the stream's order; then the model is destroyed while a run may be under way.
    assert library.bnn_run_device(model, inputs, outputs, driver.stream) == 0, library.bnn_device_error()
    driver.download(target, result)
    np.testing.assert_array_equal(result, ready.alone)
    driver.upload(target, np.full_like(result, np.nan))
    assert library.bnn_run_device(model, inputs, outputs, driver.stream) == 0, library.bnn_device_error()
    library.bnn_destroy(model)
    driver.download(target, result)
    np.testing.assert_array_equal(result, ready.alone)
    driver.free(source)
    driver.free(target)
