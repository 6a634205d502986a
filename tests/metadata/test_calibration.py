"""The images that seeded weights are calibrated on: made again from what a model's file says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bnn_deploy.errors import InputError, ModelFileError
from bnn_deploy.metadata.calibration import Calibration, calibration_inputs, calibration_of
from bnn_deploy.metadata.entries import CALIBRATION


def test_inputs_are_fixed_for_ever() -> None:
    """Fails if a model file's stored seed gave other images than when it was written."""
    images = calibration_inputs(3, 2, (1, 5, 6))
    assert images.dtype == np.float32
    assert images.shape == (2, 1, 5, 6)
    np.testing.assert_array_equal(images * 64, np.round(images * 64))
    assert (images[0, 0, 0] * 64).tolist() == [44, 68, -9, -88, -31, -135]
    assert json.loads(Calibration(3, 2, (1, 5, 6)).to_json()) == {
        "seed": 3, "samples": 2, "shape": [1, 5, 6], "kind": "normal"
    }  # fmt: skip


@pytest.mark.parametrize(("samples", "shape"), [(0, (1, 8, 8)), (1, (8, 8)), (1, (1, 0, 8)), (2**20, (3, 224, 224))])
def test_impossible_inputs_are_refused(samples: int, shape: tuple[int, ...]) -> None:
    """Fails if sizes from an untrusted file's metadata were allocated unchecked."""
    with pytest.raises(InputError):
        calibration_inputs(0, samples, shape)


def test_what_is_written_is_read() -> None:
    """Breaks if writer and reader of the entry disagree, so that parity is checked on images without a margin."""
    calibration = Calibration(3, 2, (1, 5, 6))
    assert calibration_of({CALIBRATION: calibration.to_json()}, Path("x.onnx")) == calibration
    assert calibration_of({}, Path("x.onnx")) is None


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"seed": -1, "samples": 2, "shape": [1, 5, 6], "kind": "normal"}', "[" * 9999]
)
def test_damaged_entries_are_refused(text: str) -> None:
    """Breaks if a damaged file ends in a stack trace instead of a sentence that names it."""
    with pytest.raises(
        ModelFileError, match=r"^x\.onnx: its metadata entry bnn_deploy\.calibration cannot be understood"
    ):
        calibration_of({CALIBRATION: text}, Path("x.onnx"))
