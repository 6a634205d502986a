"""Damaged checkpoints: refused with one error, and never worth more memory than their size."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bnn_deploy.errors import ModelFileError
from bnn_deploy.weights.numpy_file import LARGEST_EXPANSION
from bnn_deploy.weights.read_state_dict import read_state_dict
from tests.weights.mindspore_files import FLOATS, checkpoint, text_value, with_crc, written
from tests.weights.numpy_files import npy, npz

ARRAY = npy(FLOATS.numpy())


@st.composite
def mutations(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with a few bytes changed, and sometimes cut off, or with a part of it repeated."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(changed))] * 2)))
    how = draw(st.sampled_from(["whole", "cut", "removed", "repeated"]))
    if how == "cut":
        return bytes(changed[:end])
    if how == "removed":
        return bytes(changed[:start] + changed[end:])
    return bytes(changed[:end] + changed[start:end] + changed[end:]) if how == "repeated" else bytes(changed)


FUZZED_CHECKPOINT = with_crc(checkpoint({"a": FLOATS, "b.c": torch.ones(())}, piece_bytes=8) + text_value("n", "x"))


def read_and_measure(path: Path) -> tuple[dict[str, Tensor] | None, int]:
    """The file's tensors, None if it was refused, and the most memory (bytes) that Python and numpy had meanwhile."""
    tracemalloc.start()
    try:
        content, _ = read_state_dict(path)
    except ModelFileError:
        content = None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return content, peak


# Objects of zipfile, numpy's header parser and the message of the error: some tens of kB whatever the file.
FIXED_BYTES = 2**20


@settings(max_examples=300, deadline=None)
@given(content=st.one_of(mutations(FUZZED_CHECKPOINT), mutations(FUZZED_CHECKPOINT[:-17])))
def test_damaged_mindspore_files_never_crash(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Breaks if some damage makes the reader fail with anything but ModelFileError, or allocate what the file only claims."""
    path = written(tmp_path_factory.getbasetemp() / "fuzzed.ckpt", content)
    found, peak = read_and_measure(path)
    assert peak < FIXED_BYTES + 4 * len(content)
    if found is not None:
        assert sum(tensor.nbytes for tensor in found.values()) <= len(content)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), inside=st.booleans(), compression=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
def test_damaged_npz_files_never_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, inside: bool, compression: int
) -> None:
    """Breaks if damage to an archive, or to an array inside a sound one, does more than raise ModelFileError."""
    if inside:
        content = npz({"a.npy": data.draw(mutations(ARRAY)), "b.npy": ARRAY}, compression)
    else:
        content = data.draw(mutations(npz({"a.npy": ARRAY, "b.npy": ARRAY}, compression)))
    path = written(tmp_path_factory.getbasetemp() / "fuzzed.npz", content)
    found, peak = read_and_measure(path)
    # An entry as bytes and as tensor, beside the tensors before it.
    assert peak < FIXED_BYTES + 3 * LARGEST_EXPANSION * len(content)
    assert found is None or all(isinstance(tensor, Tensor) for tensor in found.values())
