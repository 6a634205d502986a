"""The process that holds TVM's client of one board (``rpc_worker``), seen from here: asked, and ended when it does not answer."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import IO, Any

import numpy as np

from bnn_deploy.devices import rpc_worker


class WorkerSilent(Exception):
    """The worker did not answer in time, and was killed."""


class WorkerGone(Exception):
    """The worker died; what it said last."""


class WorkerProcess:
    """A worker, and the socket to it. Not for several threads at once, except ``kill`` and ``close``."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                rpc_worker.command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=(theirs.fileno(),),
                env=rpc_worker.environment(),
            )
        self._connection = Connection(ours.detach())

    def ask(
        self,
        operation: str,
        timeout: float,
        array: np.ndarray | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> tuple[dict[str, Any], bytes]:
        """One request and its answer.

        Args:
            operation: of ``rpc_worker``.
            timeout: seconds until the answer.
            array: its bytes go with the request.
            arguments: of the operation, as JSON.

        Returns:
            the answer's JSON, with "error" if TVM raised one, and the bytes that came with it.

        Raises:
            WorkerSilent: no answer; the worker is dead now.
            WorkerGone: it died before.
        """
        with self._asking:
            return self._exchange(operation, timeout, array, arguments or {})

    def _exchange(
        self, operation: str, timeout: float, array: np.ndarray | None, arguments: Mapping[str, Any]
    ) -> tuple[dict[str, Any], bytes]:
        request = {"operation": operation, "payload": array is not None, **arguments}
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            if array is not None:
                self._connection.send_bytes(np.ascontiguousarray(array).data.cast("B"))
            if not self._connection.poll(timeout):
                self.kill()
                raise WorkerSilent
            answer = json.loads(self._connection.recv_bytes())
            return answer, self._connection.recv_bytes() if answer["payload"] else b""
        except (EOFError, OSError) as error:
            self.kill()
            raise WorkerGone(self._last_words()) from error

    def _last_words(self) -> str:
        """The last line that a dead worker wrote to its standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"the client ended with status {self._process.returncode}"

    def close(self, timeout: float) -> None:
        """Let it give the board back within some seconds, and end it; after a request that was interrupted, just end it."""
        if self._asking.acquire(blocking=False):
            self._asking.release()
            if self._process.poll() is None:
                with contextlib.suppress(WorkerSilent, WorkerGone):
                    self.ask("close", timeout)
            self.kill()
            self._connection.close()
            self._errors.close()
        self.kill()

    def kill(self) -> None:
        """End it at once; a request under way in another thread fails."""
        self._process.kill()
        self._process.wait()
