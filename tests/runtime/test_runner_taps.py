"""The runner's --taps: the same bytes as in this process; one sentence and no file for anything that is wrong."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from tests.runtime.runner_calls import assert_refused, call, saved
from tests.runtime.toy_network import reference, toy_input
from tests.runtime.toy_taps import ARENA, TOTAL_BYTES, VALUES, tap, toy_bytes, toy_forced, toy_taps, toy_values

TAPPED = ("--input", "x.npy", "--output", "y.npy", "--taps", "t.npy", "--observed", "y.npy-observed")
FORCED = (*TAPPED, "--forced", "f.npy")


def prepare(folder: Path, batches: int = 3, force: tuple[str, ...] = ()) -> np.ndarray:
    """x.npy, t.npy and f.npy; returns what is in the first."""
    array = toy_input(2 * batches)
    np.save(folder / "x.npy", array)
    np.save(folder / "t.npy", toy_taps(force))
    np.save(folder / "f.npy", toy_bytes(toy_forced(2 * batches)))
    return array


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("force", [(), ("scaled",), tuple(VALUES)], ids=len)
def test_values_are_those_of_numpy(runner: Path, tmp_path: Path, force: tuple[str, ...], threads: int) -> None:
    """The runner sees or forces other values, mixes up batches, or loses a file."""
    array = prepare(tmp_path, force=force)
    result = call(runner, *(FORCED if force else TAPPED), "--threads", threads, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    other = toy_forced(6)
    values, expected = toy_values(array, {name: other[name] for name in force})
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)
    observed = np.load(tmp_path / "y.npy-observed")
    assert observed.dtype == np.uint8 and observed.flags.c_contiguous
    np.testing.assert_array_equal(observed, toy_bytes(values))
    assert len(list(tmp_path.iterdir())) == 5


def test_fewer_taps_than_bytes(runner: Path, tmp_path: Path) -> None:
    """Without forced values the file of what taps see is longer than they need, and with them not as wide as that of these."""
    array = prepare(tmp_path)
    np.save(tmp_path / "t.npy", toy_taps()[:1])
    for options, width in ((TAPPED, 384), (FORCED, TOTAL_BYTES)):
        assert call(runner, *options, cwd=tmp_path).returncode == 0
        observed = np.load(tmp_path / "y.npy-observed")
        assert observed.shape == (3, width) and not observed[:, 384:].any()
        np.testing.assert_array_equal(observed[:, :384], toy_bytes(toy_values(array, {})[0])[:, :384])
    np.save(tmp_path / "t.npy", np.zeros((0, 9), np.int64))
    assert call(runner, *TAPPED, cwd=tmp_path).returncode == 0
    assert np.load(tmp_path / "y.npy-observed").shape == (3, 0)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), reference(array))


def test_a_profile_beside_taps_is_without_them(runner: Path, tmp_path: Path) -> None:
    """--profile with --taps times the copies, or the taps miss the first batch."""
    array = prepare(tmp_path)
    assert call(runner, *TAPPED, "--profile", "p.json", "--repeat", 1, cwd=tmp_path).returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy-observed"), toy_bytes(toy_values(array, {})[0]))


GOOD, VALUE_BYTES = toy_taps(["sums"]), toy_bytes(toy_forced(6))
BROKEN = {
    "taps are text": ("t.npy", b"1 2 3", "too short"),
    "taps are cut off": ("t.npy", saved(GOOD)[:-1], "does not fit its shape (3, 9)"),
    "taps are int32": ("t.npy", saved(GOOD.astype(np.int32)), "'<i4', expected '<i8' (little-endian int64)"),
    "taps are narrow": ("t.npy", saved(GOOD[:, :8].copy()), "shape (3, 8), expected (taps, 9)"),
    "taps are one": ("t.npy", saved(GOOD[0]), "shape (9,), expected (taps, 9)"),
    "taps by column": ("t.npy", saved(np.asfortranarray(GOOD)), "Fortran order"),
    "more taps than memory": (
        "t.npy",
        saved(GOOD).replace(b"(3, 9), }                ", b"(2000000000000000, 9), } "),
        "does not fit its shape (2000000000000000, 9)",
    ),
    "a tap outside": (
        "t.npy",
        saved(np.array([GOOD[0], tap(1, ARENA, 704, 4)])),
        "row 1 of 't.npy' is no place of this",
    ),
    "a tap far outside": ("t.npy", saved(np.array([tap(1, ARENA, 0, 2**62, 2**62)])), "row 0 of 't.npy' is no place"),
    "values for fewer batches": ("f.npy", saved(VALUE_BYTES[:2]), "shape (2, 1024), expected (3, 1024): a row"),
    "values for more batches": ("f.npy", saved(np.tile(VALUE_BYTES, (2, 1))), "shape (6, 1024), expected (3, 1024)"),
    "values are short": ("f.npy", saved(VALUE_BYTES[:, 1:].copy()), "shape (3, 1023), expected (3, 1024)"),
    "values are one row": ("f.npy", saved(VALUE_BYTES.reshape(-1)), "shape (3072,), expected (3, 1024)"),
    "values are int8": ("f.npy", saved(VALUE_BYTES.view(np.int8)), "'|i1', expected '|u1' (uint8)"),
    "values are cut off": ("f.npy", saved(VALUE_BYTES)[:-1], "does not fit its shape (3, 1024)"),
    "more values than there are": (
        "f.npy",
        saved(VALUE_BYTES).replace(b"(3, 1024), }            ", b"(3, 3000000000000000), }"),
        "does not fit its shape (3, 3000000000000000)",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(runner: Path, tmp_path: Path, name: str) -> None:
    """A broken file crashes the runner, makes it allocate without limit, or gives a result."""
    file, content, message = BROKEN[name]
    prepare(tmp_path, force=("sums",))
    (tmp_path / file).write_bytes(content)
    assert_refused(call(runner, *FORCED, cwd=tmp_path), message, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TAPPED, "'t.npy' has taps that force values; give the values with --forced"),
        (TAPPED[:6], "--taps goes with --output and --observed"),
        ((*TAPPED[:4], *TAPPED[6:]), "--taps goes with --output and --observed"),
        ((*TAPPED[:2], *TAPPED[4:], "--profile", "p.json"), "--taps goes with --output and --observed"),
        ((*TAPPED[:4], "--forced", "f.npy"), "--forced with --taps"),
        ((*TAPPED[:5], "none.npy", *TAPPED[6:]), "cannot read 'none.npy': No such file"),
        ((*TAPPED, "--forced", "none.npy"), "cannot read 'none.npy': No such file"),
        ((*FORCED[:7], "nowhere/y.npy", *FORCED[8:]), "cannot write 'nowhere/y.npy': No such file"),
        ((*TAPPED, "--forced"), "--forced needs a value"),
    ],
)
def test_wrong_options(runner: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    """Options that do not fit together are accepted or not explained, or leave a file."""
    prepare(tmp_path, force=("sums",))
    assert_refused(call(runner, *options, cwd=tmp_path), message, tmp_path)


def test_failing_kernel(runner: Path, tmp_path: Path) -> None:
    """A kernel that fails in the second batch leaves half a file."""
    array = prepare(tmp_path)
    array[2, 0] = 666
    np.save(tmp_path / "x.npy", array)
    assert_refused(call(runner, *TAPPED, cwd=tmp_path), "kernel toy_check of layer stem.check", tmp_path)


def test_killed_midway(host_bundle: Bundle, tmp_path: Path) -> None:
    """A runner that is stopped leaves its unfinished files."""
    array = prepare(tmp_path, batches=40)
    array[:, 0] = 777  # each batch takes long
    np.save(tmp_path / "x.npy", array)
    process = subprocess.Popen([str(host_bundle.runner), *TAPPED], cwd=tmp_path)
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("y.npy*.partial-*"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("y.npy*"))
