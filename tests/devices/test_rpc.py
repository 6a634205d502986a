"""``rpc://``: TVM's own RPC server, on this machine and inside emulated arm64 Python, and what may go wrong with one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.registry import get_device
from bnn_deploy.devices.rpc_process import WorkerProcess
from bnn_deploy.errors import BundleError, DeviceError, InputError
from tests.devices.rpc_servers import BOARD_PYTHON, RpcProcess, free_port, needs_rpc, own_children
from tests.devices.tapped import assert_taps_work
from tests.runtime.toy_network import HIDDEN, INPUTS, constants, reference, toy_input
from tests.runtime.toy_taps import ARENA, TOTAL_BYTES, tap, toy_taps


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RpcProcess]:
    """A server of this machine; tests may leave it without clients only."""
    needs_rpc()
    process = RpcProcess(tmp_path_factory.mktemp("server"), "rpc_server")
    try:
        process.wait()
        yield process
    finally:
        process.kill()


@pytest.fixture(scope="module")
def arm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RpcProcess]:
    """A server in emulated arm64 Python, which takes a quarter of a minute to start."""
    needs_rpc(emulated=True)
    process = RpcProcess(tmp_path_factory.mktemp("arm"), "rpc_server", python=BOARD_PYTHON)
    try:
        process.wait()
        yield process
    finally:
        process.kill()


def address(process: RpcProcess) -> str:
    return f"rpc://{process.place}"


def test_runs_equal_numpy_and_leave_nothing(server: RpcProcess, device_host_bundle: Bundle) -> None:
    """Batches are lost, reordered or mixed with those of before, or uploaded files stay on the board."""
    children = own_children()
    for threads in (1, 3):
        with get_device(address(server)).open(device_host_bundle, threads) as session:
            for rows in (6, 2, 64, 6):
                array = toy_input(rows, seed=rows)
                np.testing.assert_array_equal(session.run(array), reference(array))
            assert session.boards() == ()
    assert own_children() == children
    folders = server.work_folders()
    deadline = time.monotonic() + 10
    while any(folder.exists() for folder in folders) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(folders) >= 2 and not any(folder.exists() for folder in folders)


def test_taps(server: RpcProcess, device_host_bundle: Bundle) -> None:
    """Over RPC, values are mixed up with those of before, or a wrong tap takes the session with it."""
    for threads in (1, 2):
        with get_device(address(server)).open(device_host_bundle, threads) as session:
            assert_taps_work(session)
            with pytest.raises(InputError, match=f"{server.place}: a tap is no place of the network"):
                session.run_tapped(toy_input(), np.array([tap(1, ARENA, 704, 4)], np.int64), 4)
            assert_taps_work(session)
            array = toy_input()
            array[0, 0] = 666
            with pytest.raises(BundleError, match=r"toy_check of layer stem\.check"):
                session.run_tapped(array, toy_taps(), TOTAL_BYTES)


def test_bundle_without_taps(server: RpcProcess, device_host_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle of before looks like a board that went away."""
    exchange = WorkerProcess._exchange

    def of_before(self: WorkerProcess, operation: str, *arguments: Any) -> Any:
        if operation == "run_tapped":  # what TVM says of a function that a library does not have
            answer, _ = exchange(self, "text", 60.0, None, {"function": "bnn_no_such_function", "limit": 8})
            return {"error": answer["error"].replace("bnn_no_such_function", "bnn_run_tapped")}, b""
        return exchange(self, operation, *arguments)

    with get_device(address(server)).open(device_host_bundle) as session:
        monkeypatch.setattr(WorkerProcess, "_exchange", of_before)
        with pytest.raises(BundleError, match="too old for taps; compile the model again"):
            session.run_tapped(toy_input(), toy_taps(), TOTAL_BYTES)
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))


def test_profile_is_the_runners(server: RpcProcess, device_host_bundle: Bundle) -> None:
    """A profile over RPC lacks what one by the runner has, or its numbers do not belong together."""
    with get_device(address(server)).open(device_host_bundle, 2) as session:
        profile = session.profile(repeat=7, warmup=1)[0]
    assert profile.board == server.place and not profile.emulated
    assert profile.step_seconds.shape == (7, len(device_host_bundle.steps)) and profile.total_seconds.shape == (7,)
    assert (profile.step_seconds.sum(axis=1) <= profile.total_seconds).all() and (profile.total_seconds > 0).all()
    assert profile.before is not None and profile.before.host == socket.gethostname()
    assert profile.after is not None and profile.after.cpu_flags
    assert profile.peak_memory_bytes is not None and profile.copy_bytes_per_second is not None


def test_state_of_a_board_without_a_bundle(server: RpcProcess) -> None:
    """`doctor --device rpc://…` needs a bundle, or describes another machine."""
    (state,) = get_device(address(server)).system_states().values()
    assert state.host == socket.gethostname() and state.machine == os.uname().machine and state.processors


def test_failing_kernel_names_its_layer(server: RpcProcess, device_host_bundle: Bundle) -> None:
    """A kernel that fails on a board goes unnoticed, or takes the session with it."""
    array = toy_input()
    array[0, 0] = 666
    with get_device(address(server)).open(device_host_bundle) as session:
        with pytest.raises(BundleError, match=rf"toy_check of layer stem\.check .*{server.place}"):
            session.run(array)
        with pytest.raises(InputError, match="shape"):
            session.run(toy_input(3))
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))


def test_bundles_for_other_boards_are_refused(
    server: RpcProcess, device_host_bundle: Bundle, device_arm_bundle: Bundle
) -> None:
    """A wrong architecture or a missing instruction shows as a crash of the server."""
    device = get_device(address(server))
    with pytest.raises(BundleError, match=r"is no arm64 machine.* \(target toy-arm\).*compile the model"):
        device.open(device_arm_bundle)
    processor = {**device_host_bundle.manifest["processor"], "required_cpu_flags": ["sse2", "no_such_flag"]}
    manifest = {**device_host_bundle.manifest, "processor": processor}
    with pytest.raises(BundleError, match=f"instructions no_such_flag the processor of {server.place} lacks"):
        device.open(dataclasses.replace(device_host_bundle, manifest=manifest))
    manifest = {**device_host_bundle.manifest, "steps": device_host_bundle.manifest["steps"][:3]}
    with pytest.raises(DeviceError, match="another network"):
        device.open(dataclasses.replace(device_host_bundle, manifest=manifest))
    np.testing.assert_array_equal(device.run(device_host_bundle, toy_input()), reference(toy_input()))


def test_a_server_with_another_client_is_not_waited_for_long(server: RpcProcess, device_host_bundle: Bundle) -> None:
    """A second client waits without a word until the first one goes."""
    with get_device(address(server)).open(device_host_bundle) as session:
        start = time.monotonic()
        with pytest.raises(DeviceError, match=r"within 2 s; it serves one client at a time"):
            get_device(address(server), 2).open(device_host_bundle)
        assert time.monotonic() - start < 20
        np.testing.assert_array_equal(session.run(toy_input()), reference(toy_input()))
    np.testing.assert_array_equal(
        get_device(address(server)).run(device_host_bundle, toy_input()), reference(toy_input())
    )


@contextmanager
def answering(answer: bytes | None) -> Iterator[int]:
    """A port where a program says ``answer`` to one client and hangs up; with None, it says nothing and does not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer or b"")
                # As sshd does. A client that is cut off while it sends never reads the answer.
                with contextlib.suppress(ConnectionResetError):
                    while answer != b"" and connection.recv(1 << 16):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no TVM RPC server"),
        (b"", "connection was lost at once"),
        (None, "no answer from a TVM RPC server within 2 s"),
    ],
)
def test_other_programs_are_told_from_servers(device_host_bundle: Bundle, answer: bytes | None, words: str) -> None:
    """The wrong port hangs, or ends in TVM's traceback."""
    with answering(answer) as port, pytest.raises(DeviceError, match=words) as caught:
        get_device(f"rpc://127.0.0.1:{port}", 2).open(device_host_bundle)
    assert str(caught.value).startswith(f"127.0.0.1:{port}: ") and "\n" not in str(caught.value)


def test_unreachable_servers_are_named(device_host_bundle: Bundle) -> None:
    """A board that is off, or a name nobody knows, ends in TVM's traceback."""
    children = own_children()
    with pytest.raises(DeviceError, match=r"nothing listens there; start `python -m tvm\.exec\.rpc_server"):
        get_device(f"rpc://127.0.0.1:{free_port()}").open(device_host_bundle)
    with pytest.raises(DeviceError, match="there is no such host"):
        get_device("rpc://no-such-host.invalid:9090?insecure").open(device_host_bundle)
    assert own_children() == children


def test_another_version_of_the_protocol_is_named(tmp_path: Path, device_host_bundle: Bundle) -> None:
    """A board with another TVM shows as a lost connection."""
    needs_rpc()
    import tvm

    library = Path(tvm.__file__).parent / "lib" / "libtvm_runtime.so"
    code = library.read_bytes()
    assert code.count(b"\x000.8.0\x00") == 1, "TVM's RPC protocol has another version"
    folder = tmp_path / "lib"
    folder.mkdir()
    for path in library.parent.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / library.name).unlink()
    (folder / library.name).write_bytes(code.replace(b"\x000.8.0\x00", b"\x000.7.9\x00"))
    process = RpcProcess(tmp_path / "server", "rpc_server", environment={"TVM_LIBRARY_PATH": str(folder)})
    try:
        process.wait()
        with pytest.raises(DeviceError, match=r"another version of TVM's RPC protocol.*0\.7\.9.*0\.8\.0"):
            get_device(address(process)).open(device_host_bundle)
    finally:
        process.kill()


@pytest.mark.parametrize("end", ["killed", "frozen"])
def test_a_board_that_goes_away(tmp_path: Path, device_host_bundle: Bundle, end: str) -> None:
    """A board without power keeps the command waiting for ever, or leaves its client process behind."""
    needs_rpc()
    children = own_children()
    process = RpcProcess(tmp_path, "rpc_server")
    try:
        process.wait()
        with get_device(address(process), 3).open(device_host_bundle) as session:
            session.run(toy_input())
            process.kill() if end == "killed" else process.freeze()
            start = time.monotonic()
            with pytest.raises(
                DeviceError, match="went away in the middle" if end == "killed" else "within 3 s"
            ) as caught:
                session.run(toy_input())
            assert time.monotonic() - start < 10 and process.place in str(caught.value)
    finally:
        process.kill()
    assert own_children() == children


@pytest.mark.board
def test_arm_board_equals_numpy(arm_server: RpcProcess, device_arm_bundle: Bundle) -> None:
    """The library needs more of an arm64 board than TVM's server there has, or its times pass for a processor's."""
    device = get_device(address(arm_server))
    with device.open(device_arm_bundle, 2) as session:
        for rows in (2, 128):
            array = toy_input(rows, seed=rows)
            np.testing.assert_array_equal(session.run(array), reference(array))
        profile = session.profile(repeat=3, warmup=1)[0]
    assert profile.emulated and profile.step_seconds.shape == (3, len(device_arm_bundle.steps))
    (state,) = device.system_states().values()
    assert state.machine == "aarch64" and state.emulated


def toy_onnx(path: Path) -> Path:
    """The network of ``toy_plan()`` as an ONNX file."""
    scale, weight, bias = constants()
    tensors = [onnx.numpy_helper.from_array(a, n) for n, a in (("scale", scale), ("weight", weight), ("bias", bias))]
    nodes = [
        onnx.helper.make_node("Mul", ["image", "scale"], ["scaled"]),
        onnx.helper.make_node("Gemm", ["scaled", "weight", "bias"], ["logits"], transB=1),
    ]
    image, logits = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("batch", size))
        for name, size in (("image", INPUTS), ("logits", HIDDEN))
    )
    graph = onnx.helper.make_graph(nodes, "toy", [image], [logits], tensors)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.mark.board
def test_command_line_on_an_arm_board(
    arm_server: RpcProcess, device_arm_bundle: Bundle, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    """run, validate or profile give something else over RPC than under plain qemu."""
    bundle, model = device_arm_bundle.path, toy_onnx(tmp_path / "toy.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(5).standard_normal((10, INPUTS), np.float32))
    reports = {}
    for name, device in (("rpc", address(arm_server)), ("qemu", "qemu")):
        output = tmp_path / f"{name}.npy"
        result = invoke("run", bundle, "--input", tmp_path / "x.npy", "--output", output, "--device", device)
        assert result.exit_code == 0, result.stderr
        options = ("--bundle", bundle, "--level", 3, "--samples", 150, "--device", device, "--format", "json")
        result = invoke("validate", model, *options)
        assert result.exit_code == 0, result.stderr
        reports[name] = json.loads(result.stdout)
    assert (tmp_path / "rpc.npy").read_bytes() == (tmp_path / "qemu.npy").read_bytes()
    assert reports["rpc"].pop("device") == address(arm_server) and reports["qemu"].pop("device") == "qemu"
    assert reports["rpc"] == reports["qemu"]
    assert reports["rpc"]["model"]["agreements"] == reports["rpc"]["model"]["samples"] == 150
    result = invoke("profile", bundle, "--device", address(arm_server), "--repeat", 2, "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert "emulat" in result.stdout


def test_board_python_is_a_copy_of_this_tvm() -> None:
    """The emulated board has another TVM than the one that compiles, so its tests prove less than they say."""
    needs_rpc(emulated=True)
    from importlib.metadata import version

    assert (BOARD_PYTHON.parent / "wheels" / f"apache_tvm-{version('apache-tvm')}.dist-info").is_dir()
    assert shutil.which("qemu-aarch64")
