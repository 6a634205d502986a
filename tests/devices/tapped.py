"""What every device must give for taps of the toy network."""

from __future__ import annotations

import numpy as np

from bnn_deploy.devices.base import Session
from tests.runtime.toy_network import toy_input
from tests.runtime.toy_taps import TOTAL_BYTES, toy_bytes, toy_forced, toy_taps, toy_values


def assert_taps_work(session: Session) -> None:
    """Values are those of numpy for three batches, seen only, and with some of them forced; ordinary runs stay as they were."""
    array, other = toy_input(6), toy_forced(6)
    for force in ((), ("scaled",), ("sums", "logits")):
        given = toy_bytes(other) if force else None
        output, observed = session.run_tapped(array, toy_taps(force), TOTAL_BYTES, given)
        values, expected = toy_values(array, {name: other[name] for name in force})
        np.testing.assert_array_equal(output, expected)
        np.testing.assert_array_equal(observed, toy_bytes(values))
    output, observed = session.run_tapped(array, toy_taps()[:0], 0)
    assert observed.shape == (3, 0)
    np.testing.assert_array_equal(output, session.run(array))
