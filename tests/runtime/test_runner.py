"""The static runner: same bits as Python, one sentence and exit status 2 for anything else, no half-written output.

Every test of files runs both the bundle's runner and one built by gcc with AddressSanitizer and UBSan.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices import qemu
from bnn_deploy.errors import ToolError
from bnn_deploy.runtime.loader import Model
from tests.runtime.runner_calls import assert_refused, call, saved
from tests.runtime.toy_network import AWKWARD_LAYER, INPUTS, reference, toy_input

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "runner_profile.schema.json").read_text())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_equals_python(runner: Path, host_bundle: Bundle, tmp_path: Path, threads: int) -> None:
    """The runner misreads a header, loses a batch or depends on the number of threads."""
    array = toy_input(6)
    np.save(tmp_path / "x.npy", array)
    result = call(runner, "--input", "x.npy", "--output", "y.npy", "--threads", threads, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    output = np.load(tmp_path / "y.npy")
    assert output.tobytes() == Model(host_bundle)(array).tobytes() == reference(array).tobytes()
    assert output.shape == (6, 40) and output.flags.c_contiguous
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "y.npy"]
    assert (tmp_path / "y.npy").stat().st_mode & 0o777 == (tmp_path / "x.npy").stat().st_mode & 0o777


@pytest.mark.qemu
def test_arm64_equals_python_with_nothing_around(arm_bundle: Bundle, host_bundle: Bundle, tmp_path: Path) -> None:
    """The arm64 runner needs a library or a variable of this machine, or gives other bits."""
    try:
        emulator = qemu.find_qemu()
    except ToolError as error:
        pytest.skip(str(error))
    array = toy_input(6)
    np.save(tmp_path / "x.npy", array)
    (tmp_path / "empty").mkdir()
    for threads in (1, 2, 3):
        command = [emulator, "-cpu", "cortex-a53", "-L", str(tmp_path / "empty"), str(arm_bundle.runner)]
        result = call(command, "--input", "x.npy", "--output", "y.npy", "--threads", threads, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        assert np.load(tmp_path / "y.npy").tobytes() == Model(host_bundle)(array).tobytes()


def test_needs_no_dynamic_loader(host_bundle: Bundle, arm_bundle: Bundle) -> None:
    """The runner is not static, so it fails on a device with another C library."""
    for bundle in (host_bundle, arm_bundle):
        content = bundle.runner.read_bytes()
        offset, size, count = struct.unpack_from("<Q", content, 32)[0], *struct.unpack_from("<HH", content, 54)
        types = [struct.unpack_from("<I", content, offset + size * index)[0] for index in range(count)]
        assert 1 in types and 3 not in types  # PT_LOAD, and no PT_INTERP


def profile(runner: Path | list[str], folder: Path, *options: object, repeat: int = 5) -> tuple[dict[str, Any], str]:
    """The profile of the toy network, checked against the schema, and what was printed."""
    np.save(folder / "x.npy", toy_input())
    counts = ("--repeat", repeat, "--warmup", 1)
    result = call(runner, "--input", "x.npy", "--profile", "p.json", *counts, *options, cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads((folder / "p.json").read_text(encoding="utf-8"))
    jsonschema.validate(report, SCHEMA)
    return report, result.stdout


def test_profile(runner: Path, host_bundle: Bundle, tmp_path: Path) -> None:
    """The profile is no JSON, misses steps or repeats, or its parts do not fit the whole."""
    report, _ = profile(runner, tmp_path, "--output", "y.npy", "--threads", 2)
    assert (report["threads"], report["repeat"], report["warmup"]) == (2, 5, 1)
    names = [(step.kernel, step.layer, step.kind) for step in host_bundle.steps]
    assert [(step["kernel"], step["layer"], step["kind"]) for step in report["steps"]] == names
    seconds = np.array(report["step_seconds"])
    assert seconds.shape == (5, 4) and (seconds > 0).all()
    # Each number is printed with 9 digits, so a sum of four may exceed the whole by that rounding.
    assert (seconds.sum(axis=1) <= np.array(report["total_seconds"]) * (1 + 1e-7)).all()
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), reference(toy_input()))


def test_profile_tells_of_the_machine(host_bundle: Bundle, tmp_path: Path) -> None:
    """The state, the memory or its speed is missing, an earlier process's, or counts what the measurement itself took."""
    report, _ = profile(host_bundle.runner, tmp_path)
    assert (report["format"], report["format_version"]) == ("bnn_deploy.runner_profile", 1)
    assert (report["kernel_set"], report["emulated"]) == ("", False)
    # A static program with a toy network: well below the 64 MB that are copied, and below this Python's own peak.
    assert 50_000 < report["peak_memory_bytes"] < 8 << 20
    assert 1e8 < report["copy_bytes_per_second"] < 1e13
    for state in (report["system_before"], report["system_after"]):
        assert state["machine"] == os.uname().machine and state["host"] == os.uname().nodename
        assert len(state["cpus"]) == len(os.sched_getaffinity(0)) or len(state["cpus"]) == os.cpu_count()
        assert state["memory_total_bytes"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert state["emulated"] is False


def test_summary(runner: Path, tmp_path: Path) -> None:
    """The lines for people tell other numbers than the file."""
    report, printed = profile(runner, tmp_path, repeat=7)
    total = np.array(report["total_seconds"]) * 1e3
    found = re.match(
        r"latency: median (\S+) ms, min (\S+) ms, 90th percentile (\S+) ms \(7 repeats, threads: 1\)\n", printed
    )
    assert found is not None
    expected = [np.median(total), total.min(), np.percentile(total, 90)]
    np.testing.assert_allclose([float(number) for number in found.groups()], expected, atol=0.00051)
    medians = np.median(np.array(report["step_seconds"]), axis=0) * 1e3
    rows = re.findall(r"^ +(\S+) ms +(\S+) % +(\d+)  (\w+) +(.*)$", printed, flags=re.MULTILINE)
    order = np.argsort(-medians, kind="stable")
    assert [int(row[2]) for row in rows] == list(order)
    assert [row[4] for row in rows] == [report["steps"][index]["layer"] for index in order]
    np.testing.assert_allclose([float(row[0]) for row in rows], medians[order], atol=0.00051)
    np.testing.assert_allclose([float(row[1]) for row in rows], (medians / medians.sum() * 100)[order], atol=0.051)


@pytest.mark.qemu
def test_emulated_profile(arm_bundle: Bundle, tmp_path: Path) -> None:
    """An emulator's times, memory or bandwidth pass for a processor's."""
    try:
        emulator = qemu.find_qemu()
    except ToolError as error:
        pytest.skip(str(error))
    (tmp_path / "empty").mkdir()
    command = [emulator, "-L", str(tmp_path / "empty"), str(arm_bundle.runner)]
    report, printed = profile(command, tmp_path)
    assert report["emulated"] is True
    assert report["system_before"]["emulated"] is True and report["system_after"]["emulated"] is True
    assert report["system_after"]["machine"] == "aarch64"
    assert report["peak_memory_bytes"] is None and report["copy_bytes_per_second"] is None
    assert printed.startswith("These are times of an emulator") and "latency:" not in printed


@pytest.mark.parametrize("stdout", ["/dev/full", "closed", "pipe"])
def test_profile_without_a_reader(runner: Path, tmp_path: Path, stdout: str) -> None:
    """A summary that nobody can read makes the profile fail, or ends up in the profile."""
    np.save(tmp_path / "x.npy", toy_input())
    command = [runner, "--input", "x.npy", "--profile", "p.json", "--output", "y.npy"]
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            command,
            cwd=tmp_path,
            stdout={"/dev/full": full, "closed": None, "pipe": writing}[stdout],
            stderr=subprocess.PIPE,
            preexec_fn=(lambda: os.close(1)) if stdout == "closed" else None,
        )
    os.close(writing)
    assert (result.returncode, result.stderr) == (0, b"")
    jsonschema.validate(json.loads((tmp_path / "p.json").read_text(encoding="utf-8")), SCHEMA)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), reference(toy_input()))


def test_system(runner: Path, tmp_path: Path) -> None:
    """--system prints no JSON of the machine, or an output that cannot be written passes for success."""
    result = call(runner, "--system", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    state = json.loads(result.stdout)
    jsonschema.validate(state, {"$defs": SCHEMA["$defs"], "$ref": "#/$defs/system_state"})
    assert state["machine"] == os.uname().machine
    with open("/dev/full", "w") as full:
        failed = subprocess.run([runner, "--system"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert_refused(failed, "cannot write to standard output", tmp_path)


def test_information(runner: Path, tmp_path: Path) -> None:
    """--info says something else than the bundle holds."""
    result = call(runner, "--info", cwd=tmp_path)
    assert result.returncode == 0
    assert "input image: float32 (2, 48), 384 bytes\noutput logits: float32 (2, 40), 320 bytes\n" in result.stdout
    assert f"   3  float   {AWKWARD_LAYER}  (toy_add)\n" in result.stdout
    assert "usage: runner" in call(runner, "--help", cwd=tmp_path).stdout


def npy(header: str | bytes, data: bytes, version: int = 1) -> bytes:
    """A .npy file with any header."""
    text = header.encode() if isinstance(header, str) else header
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


GOOD = saved(toy_input())
HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 48), }"
DATA = toy_input().tobytes()

BROKEN = {
    "empty": (b"", "too short"),
    "text": (b"1.0 2.0 3.0 4.0\n", "is not a .npy file"),
    "magic only": (b"\x93NUMPY", "too short"),
    "no header": (b"\x93NUMPY\1\0\xff\0", "truncated inside its .npy header"),
    "version 2 cut": (b"\x93NUMPY\2\0\1\0", "truncated inside its .npy header"),
    "version 3": (npy(HEADER, DATA, 2).replace(b"NUMPY\2", b"NUMPY\3"), "version other than 1 and 2"),
    "header of 4 GB": (b"\x93NUMPY\2\0\xff\xff\xff\xff" + b" " * 100, "malformed"),
    "truncated data": (GOOD[:-1], "does not fit its shape"),
    "too much data": (GOOD + b"\0", "does not fit its shape"),
    "float64": (saved(toy_input().astype(np.float64)), "'<f8', expected '<f4'"),
    "big endian": (saved(toy_input().astype(">f4")), "'>f4', expected '<f4'"),
    "fortran order": (saved(np.asfortranarray(toy_input())), "Fortran order"),
    "wrong shape": (saved(toy_input()[:, :47].copy()), "shape (2, 47), expected (2, 48)"),
    "wrong rank": (saved(toy_input()[0]), "shape (48,), expected (2, 48)"),
    "scalar": (saved(np.float32(1)), "shape (), expected (2, 48)"),
    "half a batch": (saved(toy_input(3)), "shape (3, 48), expected (2, 48)"),
    "no rows": (saved(toy_input()[:0]), "shape (0, 48)"),
    "huge shape": (npy(HEADER.replace("2, 48", "2000000000000, 48"), DATA), "does not fit its shape"),
    "overflowing size": (npy(HEADER.replace("2, 48", "9000000000000000000, 48"), DATA), "does not fit its shape"),
    "overflowing number": (npy(HEADER.replace("2, 48", "99999999999999999999, 48"), DATA), "malformed"),
    "negative": (npy(HEADER.replace("2, 48", "-2, 48"), DATA), "malformed"),
    "too many dimensions": (npy(HEADER.replace("2, 48", "1, " * 33), DATA), "malformed"),
    "pickle": (saved(np.array([{}], dtype=object)), "'|O', expected '<f4'"),
    "records": (saved(np.zeros(2, [("a", "<f4")])), "malformed"),
    "unknown key": (npy(HEADER.replace("}", "'x': 1}"), DATA), "malformed"),
    "key twice": (npy(HEADER.replace("}", "'descr': '<f4'}"), DATA), "malformed"),
    "missing key": (npy("{'descr': '<f4', 'shape': (2, 48)}", DATA), "malformed"),
    "no end": (npy(HEADER[:-1], DATA), "malformed"),
    "text after": (npy(HEADER + " x", DATA), "malformed"),
    "no quote": (npy("{'descr': '<f4", DATA), "malformed"),
    "long type": (npy(HEADER.replace("<f4", "<" * 100), DATA), "malformed"),
    "escape codes": (npy(HEADER.replace("<f4", "\x1b[2J"), DATA), "malformed"),
    "zero byte": (npy(HEADER.encode().replace(b"False", b"Fal\0e"), DATA), "malformed"),
    "no commas": (npy(HEADER.replace(",", ""), DATA), "malformed"),
    "only spaces": (npy(" " * 118, DATA), "malformed"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(runner: Path, tmp_path: Path, name: str) -> None:
    """A broken .npy file crashes the runner, makes it allocate without limit, or gives a result."""
    content, message = BROKEN[name]
    (tmp_path / "x.npy").write_bytes(content)
    assert_refused(call(runner, "--input", "x.npy", "--output", "y.npy", cwd=tmp_path), message, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        npy(HEADER, DATA),
        npy(HEADER, DATA, version=2),
        npy("{'shape':(2,48),\"fortran_order\":False,'descr':'<f4'}", DATA),
        npy(" { 'shape' : ( 2 , 48 , ) , 'fortran_order' : False , 'descr' : '<f4' , } \n", DATA),
    ],
)
def test_unusual_headers(runner: Path, tmp_path: Path, content: bytes) -> None:
    """Valid files of other writers than numpy are refused."""
    (tmp_path / "x.npy").write_bytes(content)
    assert call(runner, "--input", "x.npy", "--output", "y.npy", cwd=tmp_path).returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), reference(toy_input()))


def test_mutated_headers(checked_runner: Path, tmp_path: Path) -> None:
    """Some header that nobody thought of makes the parser read or write outside its buffers."""
    generator = np.random.default_rng(3)
    for _ in range(120):
        content = bytearray(GOOD)
        for place in generator.integers(0, 128, generator.integers(1, 4)):
            content[place] = generator.choice(list(b"\0(){}',:0159 \n\xff\x93LTF"))
        (tmp_path / "x.npy").write_bytes(bytes(content))
        result = call(checked_runner, "--input", "x.npy", "--output", "y.npy", cwd=tmp_path)
        assert result.returncode in (0, 2), (bytes(content[:128]), result.stderr)
        if result.returncode == 2:
            assert_refused(result, "x.npy", tmp_path)
        (tmp_path / "y.npy").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give --input with --output"),
        (("--input", "x.npy"), "give --input with --output"),
        (("--output", "y.npy"), "give --input with --output"),
        (("--input",), "--input needs a value"),
        (("--fast",), "unknown option '--fast'"),
        (("x.npy",), "unknown option 'x.npy'"),
        (("--input", "absent.npy", "--output", "y.npy"), "cannot read 'absent.npy': No such file"),
        (("--input", ".", "--output", "y.npy"), "cannot read '.': it is not a regular file"),
        (("--input", "/dev/zero", "--output", "y.npy"), "not a regular file"),
        (("--input", "x.npy", "--output", "absent/y.npy"), "cannot write 'absent/y.npy': No such file or directory"),
        (("--input", "x.npy", "--output", "."), "cannot write '.': Is a directory"),
        (("--input", "x.npy", "--output", "/dev/null"), "cannot write '/dev/null': it is not a regular file"),
        (("--input", "x.npy", "--profile", "absent/p.json"), "cannot write 'absent/p.json'"),
        *((("--threads", value), "--threads takes") for value in ("0", "257", "-1", "1.5", "", "two", "9" * 30)),
        (("--repeat", "0"), "--repeat takes"),
        (("--warmup", "-1"), "--warmup takes"),
    ],
)
def test_wrong_options(runner: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    """A mistyped command line does something else than it says."""
    np.save(tmp_path / "x.npy", toy_input())
    assert_refused(call(runner, *options, cwd=tmp_path), message, tmp_path)


def test_failing_kernel(runner: Path, tmp_path: Path) -> None:
    """A failure in a later batch leaves a file with the earlier ones."""
    array = toy_input(6)
    array[4, 0] = 666
    np.save(tmp_path / "x.npy", array)
    result = call(runner, "--input", "x.npy", "--output", "y.npy", cwd=tmp_path)
    assert_refused(result, "kernel toy_check of layer stem.check reported failure", tmp_path)


def test_an_older_output_survives_a_failure(runner: Path, tmp_path: Path) -> None:
    """A failed run destroys the result of an earlier one."""
    (tmp_path / "old.npy").write_bytes(b"earlier")
    array = toy_input()
    array[0, 0] = 666
    np.save(tmp_path / "x.npy", array)
    assert call(runner, "--input", "x.npy", "--output", "old.npy", cwd=tmp_path).returncode == 2
    assert (tmp_path / "old.npy").read_bytes() == b"earlier"
    np.save(tmp_path / "x.npy", toy_input())
    assert call(runner, "--input", "x.npy", "--output", "old.npy", cwd=tmp_path).returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "old.npy"), reference(toy_input()))


def test_input_and_output_may_be_one_file(runner: Path, tmp_path: Path) -> None:
    """The output overwrites input that is still being read."""
    np.save(tmp_path / "x.npy", toy_input(40))
    assert call(runner, "--input", "x.npy", "--output", "x.npy", cwd=tmp_path).returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), reference(toy_input(40)))


def test_full_disk(host_bundle: Bundle, tmp_path: Path) -> None:
    """When no more can be written, the runner reports success or leaves a part."""
    np.save(tmp_path / "x.npy", toy_input(40))
    result = subprocess.run(
        [host_bundle.runner, "--input", "x.npy", "--output", "y.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)),
    )
    assert_refused(result, "cannot write 'y.npy': File too large", tmp_path)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_killed_midway(host_bundle: Bundle, tmp_path: Path, signal_number: int) -> None:
    """An interrupted run leaves what looks like a result."""
    array = np.full((400, INPUTS), 777, np.float32)  # each batch takes tens of milliseconds
    np.save(tmp_path / "x.npy", array)
    process = subprocess.Popen(
        [host_bundle.runner, "--input", "x.npy", "--output", "y.npy"],
        cwd=tmp_path,
        # A shell's background jobs ignore SIGINT, and what they start does, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("y.npy.partial-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal_number)
    status = process.wait(timeout=20)
    assert not (tmp_path / "y.npy").exists()
    if signal_number == signal.SIGKILL:
        assert status == -signal.SIGKILL
    else:
        assert status == 128 + signal_number and os.listdir(tmp_path) == ["x.npy"]
