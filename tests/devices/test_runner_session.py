"""What a runner answers, whoever ran it, is checked before it is believed."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest

from bnn_deploy.devices.runner_session import read_arrays
from bnn_deploy.errors import DeviceError


def test_answers_are_not_believed() -> None:
    """Whatever a board sends instead of an array ends in a traceback, or is taken for a result."""
    good = np.arange(6, dtype=np.float32).reshape(2, 3)
    stream = BytesIO()
    np.save(stream, good)
    content = stream.getvalue()
    np.testing.assert_array_equal(read_arrays(content, [((2, 3), good.dtype)], "board")[0], good)
    pickled = BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    for bad in (
        b"",
        b"nothing",
        content[:-1],
        content + b"\0",
        content.replace(b"(2, 3)", b"(9, 9)"),
        pickled.getvalue(),
    ):
        with pytest.raises(DeviceError, match="no array of shape"):
            read_arrays(bad, [((2, 3), good.dtype)], "board")
    forms = [((2, 3), good.dtype), ((3,), np.dtype(np.uint8))]
    second = BytesIO()
    np.save(second, np.arange(3, dtype=np.uint8))
    both = read_arrays(content + second.getvalue(), forms, "board")
    np.testing.assert_array_equal(both[0], good)
    np.testing.assert_array_equal(both[1], [0, 1, 2])
    for bad in (
        content,
        second.getvalue() + content,
        content + second.getvalue()[:-1],
        content + second.getvalue() + b"\0",
    ):
        with pytest.raises(DeviceError, match="no array of shape"):
            read_arrays(bad, forms, "board")
