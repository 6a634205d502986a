"""Numbers that Python and the C interface share."""

from __future__ import annotations

import re

from bnn_deploy.bundle.tensor_table import SPACES, TAP_NUMBERS
from bnn_deploy.codegen.linker import RUNTIME_SOURCES
from bnn_deploy.runtime.status import Status


def test_numbers_are_those_of_the_header() -> None:
    """A failed kernel is reported as a bad tap, or taps are read from another space, since bnn_model.h has other numbers."""
    header = (RUNTIME_SOURCES / "bnn_model.h").read_text()
    numbers = {name: int(number) for name, number in re.findall(r"\b(BNN_[A-Z_]+) = (\d+)", header)}
    names = {status: "BNN_OK" if status is Status.OK else f"BNN_ERROR_{status.name}" for status in Status}
    assert {names[status]: status.value for status in Status}.items() <= numbers.items()
    assert numbers["BNN_TAP_NUMBERS"] == TAP_NUMBERS
    spaces = {f"BNN_TAP_{space.name}": number for number, space in enumerate(SPACES)}
    taps = {
        name: number for name, number in numbers.items() if name.startswith("BNN_TAP_") and name != "BNN_TAP_NUMBERS"
    }
    assert len(taps) == 3 and taps.items() <= spaces.items()
