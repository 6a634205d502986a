"""The process that holds TVM's client of one board, since that client may wait for ever, or abort, when a board goes away.

``rpc_process.WorkerProcess`` starts it and talks to it over a socket: a JSON request, for some with the bytes of an array after it,
and a JSON answer likewise. Nothing here decides anything; errors go back as text.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

Answer = tuple[dict[str, Any], bytes | memoryview]


def command(descriptor: int) -> list[str]:
    """The command that starts a worker on one end of a socket pair; it finds the modules that this process finds.

    TVM would import PyTorch, which takes longer than all else and is of no use here.
    """
    source = (
        f"import sys; sys.path[:] = {sys.path!r}; sys.modules['torch'] = None\n"
        f"from bnn_deploy.devices.rpc_worker import serve\n"
        f"serve({descriptor})"
    )
    return [sys.executable, "-c", source]


def environment() -> dict[str, str]:
    """TVM's runtime without its compiler."""
    return {**os.environ, "TVM_USE_RUNTIME_LIB": "1", "TVM_FFI_DISABLE_TORCH_C_DLPACK": "1"}


def serve(descriptor: int) -> None:
    """Answer requests until the other end is closed."""
    connection = Connection(descriptor)
    threading.Thread(target=_exit_with_parent, args=(descriptor,), daemon=True).start()
    client = _Client()
    while True:
        try:
            request = json.loads(connection.recv_bytes())
            payload = connection.recv_bytes() if request.pop("payload") else b""
        except (EOFError, OSError):
            os._exit(0)
        try:
            answer, data = getattr(client, f"do_{request.pop('operation')}")(payload, **request)
        except Exception as error:
            answer, data = {"error": str(error) or type(error).__name__}, b""
        connection.send_bytes(json.dumps({**answer, "payload": len(data) > 0}).encode())
        if len(data) > 0:
            connection.send_bytes(data)


def _exit_with_parent(descriptor: int) -> None:
    """A call of TVM that never returns must not outlive the command that made it."""
    watcher = select.poll()
    watcher.register(descriptor, 0)  # hang-up is reported without being asked for
    watcher.poll()
    os._exit(0)


class _Client:
    """One connection, one model on the other side, and the tensors there."""

    def __init__(self) -> None:
        self.session: Any = None
        self.module: Any = None
        self.handle = 0
        self.tensors: dict[str, tuple[tuple[tuple[int, ...], str], Any]] = {}

    def do_start(self, payload: bytes) -> Answer:
        """Import TVM, which takes a second and is no part of any time-out of a board."""
        from tvm import rpc

        return {"client": rpc.__name__}, b""

    def do_connect(self, payload: bytes, host: str, port: int, key: str) -> Answer:
        from tvm import rpc

        self.session = rpc.connect(host, port, key)
        return {}, b""

    def do_load(self, payload: bytes, path: str, name: str) -> Answer:
        """Upload a library, unless it is there, and load it. The server keeps it in a folder of this connection."""
        with open(path, "rb") as file:
            self.session.upload(bytearray(file.read()), target=name)
        self.module = self.session.load_module(name)
        return {}, b""

    def do_text(self, payload: bytes, function: str, limit: int) -> Answer:
        """What a function of the library writes into a buffer of ``limit`` bytes."""
        return self._text(self.module[function], [], limit)

    def do_create(self, payload: bytes, threads: int) -> Answer:
        self.handle = int(self.module["bnn_create"](threads))
        return {"status": min(self.handle, 0)}, b""

    def do_run(self, payload: bytes, **arrays: Any) -> Answer:
        """Run the array in ``payload``; the answer holds the output's bytes."""
        source, result = self._arrays(payload, **arrays)
        status = int(self.module["bnn_run"](self.handle, source, result))
        if status < 0:
            return {"status": status, "step": int(self.module["bnn_failed_step"](self.handle))}, b""
        return {"status": 0}, np.ascontiguousarray(result.numpy()).data.cast("B")

    def do_run_tapped(
        self, payload: bytes, rows: int, taps: int, total_bytes: int, forces: bool, **arrays: Any
    ) -> Answer:
        """The same with taps. In ``payload``, the taps come first, then the bytes to force, then the array; in the answer, the
        output comes before the bytes that the taps saw."""
        tap_bytes, values = taps * 9 * 8, rows * total_bytes
        array_start = tap_bytes + values * forces
        source, result = self._arrays(payload[array_start:], **arrays)
        rows_of_taps = self._filled("taps", np.frombuffer(payload, np.int64, taps * 9).reshape(taps, 9))
        forced: Any = 0
        if forces:
            given = np.frombuffer(payload, np.uint8, values, tap_bytes).reshape(rows, total_bytes)
            forced = self._filled("forced", given)
        observed = self._tensor("observed", (rows, total_bytes), "uint8")
        status = int(self.module["bnn_run_tapped"](self.handle, source, result, rows_of_taps, observed, forced))
        if status < 0:
            return {"status": status, "step": int(self.module["bnn_failed_step"](self.handle))}, b""
        return {"status": 0}, result.numpy().tobytes() + observed.numpy().tobytes()

    def do_profile(self, payload: bytes, threads: int, repeat: int, warmup: int, limit: int, **arrays: Any) -> Answer:
        source, result = self._arrays(payload, **arrays)
        arguments = [self.handle, threads, source, result, repeat, warmup]
        answer, text = self._text(self.module["bnn_profile"], arguments, limit)
        if answer["status"] < 0:
            answer["step"] = int(self.module["bnn_failed_step"](self.handle))
        return answer, text

    def do_close(self, payload: bytes) -> Answer:
        """Give back everything, so that the server is free for the next client when this returns."""
        if self.handle > 0:
            self.module["bnn_destroy"](self.handle)
        self.tensors.clear()
        self.module = self.session = None
        return {}, b""

    def _arrays(
        self, payload: bytes, input_shape: list[int], input_dtype: str, output_shape: list[int], output_dtype: str
    ) -> tuple[Any, Any]:
        source = self._filled("input", np.frombuffer(payload, dtype=input_dtype).reshape(input_shape))
        return source, self._tensor("output", tuple(output_shape), output_dtype)

    def _filled(self, name: str, array: np.ndarray) -> Any:
        tensor = self._tensor(name, array.shape, str(array.dtype))
        tensor.copyfrom(array)
        return tensor

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        """A tensor on the board; the one of before where it fits."""
        import tvm

        if name not in self.tensors or self.tensors[name][0] != (shape, dtype):
            self.tensors[name] = ((shape, dtype), tvm.runtime.empty(shape, dtype, device=self.session.cpu(0)))
        return self.tensors[name][1]

    def _text(self, function: Any, arguments: list[Any], limit: int) -> Answer:
        buffer = self._tensor("text", (limit,), "uint8")
        length = int(function(*arguments, buffer))
        text = buffer.numpy()[: max(length, 0)].tobytes() if length <= limit else b""
        return {"status": min(length, 0), "length": max(length, 0)}, text
