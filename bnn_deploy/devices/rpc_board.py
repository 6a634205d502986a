"""One board behind a TVM RPC server: bundles run there, and every answer of it is checked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import DeviceProfile, profile_input
from bnn_deploy.devices.rpc_address import place
from bnn_deploy.devices.rpc_errors import explain
from bnn_deploy.devices.rpc_process import WorkerGone, WorkerProcess, WorkerSilent
from bnn_deploy.devices.runner_report import read_profile
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import BundleError, DeviceError, InputError
from bnn_deploy.runtime.arrays import checked_arrays
from bnn_deploy.runtime.status import Status
from bnn_deploy.runtime.taps import OWN_TAPS, checked_taps

START_SECONDS = 120.0  # importing TVM, on a busy machine
CONNECT_SECONDS = 30.0  # a server that serves another client says nothing
CLOSE_SECONDS = 5.0
DESCRIPTION_BYTES = 1 << 20
STATE_BYTES = 1 << 20
PROFILE_LIMIT_BYTES = 1 << 28
LONGEST_REASON = 4096


class RpcBoard:
    """A connection to one board. Not for several threads at once, except ``kill`` and ``close``.

    Args:
        timeout: seconds that one batch, one profile or one upload may take.

    Attributes:
        name: address of the server, once it is known.
    """

    def __init__(self, timeout: float) -> None:
        self.name = "the board"
        self.timeout = timeout
        self._bundle: Bundle | None = None
        self._threads = 1
        self._worker = WorkerProcess()

    def start(self) -> None:
        """Let the worker get ready, which takes seconds.

        Raises:
            DeviceError: TVM is not as this program knows it.
        """
        self._ask("start", START_SECONDS)

    def connect(self, host: str, port: int, key: str) -> None:
        """Connect to a server.

        Args:
            host: its address.
            port: its port.
            key: what the tracker gave with the board, "" without a tracker.

        Raises:
            DeviceError: nothing listens there, it is no TVM RPC server, it serves somebody else, or its TVM is another one.
        """
        self.name = place(host, port)
        self._ask("connect", min(self.timeout, CONNECT_SECONDS), host=host, port=port, key=key)

    def load(self, bundle: Bundle, threads: int) -> None:
        """Upload a bundle's library and prepare its network.

        Raises:
            BundleError: the board cannot load the library, or lacks instructions that it needs.
            DeviceError: the board failed or went away.
        """
        self._bundle, self._threads = bundle, threads
        self.load_library(bundle.library, bundle.manifest["files"]["model.so"]["sha256"][:32])
        self._check_description(bundle)
        self._check_processor(bundle)
        self._check_status(self._ask("create", self.timeout, threads=threads)[0])

    def load_library(self, path: Path, name: str) -> None:
        """Upload and load a library; the server forgets it when the connection ends.

        Raises:
            BundleError: the board cannot load it.
            DeviceError: the board failed or went away.
        """
        self._ask("load", self.timeout, path=str(path.resolve()), name=f"{name}.so")

    def state(self) -> SystemState:
        """The board's state right now, by the library that it loaded.

        Raises:
            DeviceError: the board failed, went away, or told nonsense.
        """
        return SystemState.from_json(self._text("bnn_system_state", STATE_BYTES), f"the state of {self.name}")

    def run(self, array: np.ndarray) -> np.ndarray:
        """See ``Session.run``; all batches in one request."""
        checked, batches = checked_arrays([array], self._opened().inputs)
        output, _ = self._run("run", checked[0], checked[0], batches)
        return output

    def run_tapped(
        self, array: np.ndarray, taps: np.ndarray, total_bytes: int, forced: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Session.run_tapped``; all batches in one request."""
        bundle = self._opened()
        checked, batches = checked_arrays([array], bundle.inputs)
        taps, forced = checked_taps(bundle, taps, total_bytes, forced, batches)
        if len(taps) == 0:
            return self.run(array), np.zeros((batches, 0), np.uint8)  # TVM does not take tensors without elements
        parts = [taps, *([] if forced is None else [forced]), checked[0]]
        payload = np.concatenate([part.reshape(-1).view(np.uint8) for part in parts])
        sizes = {"taps": len(taps), "rows": batches, "total_bytes": total_bytes, "forces": forced is not None}
        output, values = self._run("run_tapped", payload, checked[0], batches, batches * total_bytes, **sizes)
        return output, np.frombuffer(values, np.uint8).reshape(batches, total_bytes)

    def _run(
        self, operation: str, payload: np.ndarray, array: np.ndarray, batches: int, further: int = 0, **sizes: int
    ) -> tuple[np.ndarray, memoryview]:
        """The output, and the ``further`` bytes that come after it."""
        bundle = self._opened()
        expected = bundle.outputs[0]
        shape = (batches * expected.shape[0], *expected.shape[1:])
        arrays = _arrays(array, shape, expected.dtype)
        answer, data = self._ask(operation, self.timeout, payload, **sizes, **arrays)
        if operation == "run_tapped" and answer["status"] == -Status.ARGUMENT:
            raise InputError(f"{self.name}: a tap is no place of the network of {bundle.path}; {OWN_TAPS}.")
        self._check_status(answer)
        size = math.prod(shape) * np.dtype(expected.dtype).itemsize
        if len(data) != size + further:
            raise DeviceError(
                f"{self.name}: gave {len(data)} bytes, expected {expected.dtype} of shape {shape}, and {further} more."
            )
        return np.frombuffer(data, expected.dtype, math.prod(shape)).reshape(shape), memoryview(data)[size:]

    def profile(self, repeat: int, warmup: int) -> DeviceProfile:
        """See ``Session.profile``."""
        bundle = self._opened()
        array = profile_input(bundle, repeat=repeat, warmup=warmup)
        limit = _profile_bytes(bundle, repeat)
        expected = bundle.outputs[0]
        answer, data = self._ask(
            "profile",
            self.timeout,
            array,
            threads=self._threads,
            repeat=repeat,
            warmup=warmup,
            limit=limit,
            **_arrays(array, expected.shape, expected.dtype),
        )
        self._check_status(answer)
        return read_profile(self._checked_text(answer, data), bundle, self.name)

    def close(self) -> None:
        """Give the server back; after a call that was interrupted, just hang up."""
        self._worker.close(min(self.timeout, CLOSE_SECONDS))

    def kill(self) -> None:
        """Hang up at once; a call under way in another thread fails."""
        self._worker.kill()

    def _opened(self) -> Bundle:
        if self._bundle is None:
            raise RuntimeError("load a bundle first")
        return self._bundle

    def _ask(
        self, operation: str, timeout: float, array: np.ndarray | None = None, **arguments: Any
    ) -> tuple[dict[str, Any], bytes]:
        """One request and its answer; the worker is dead after any failure but an error that TVM reported."""
        try:
            answer, data = self._worker.ask(operation, timeout, array, arguments)
        except WorkerSilent:
            raise DeviceError(explain(self.name, operation, "", self._bundle, seconds=timeout)) from None
        except WorkerGone as gone:
            raise DeviceError(explain(self.name, operation, str(gone), self._bundle)) from gone
        if "error" in answer:
            too_old = operation == "run_tapped" and "bnn_run_tapped" in answer["error"]
            load_failed = operation == "load" and "load dynamic shared library" in answer["error"]
            kind = BundleError if load_failed or too_old else DeviceError
            raise kind(explain(self.name, operation, answer["error"], self._bundle))
        return answer, data

    def _check_status(self, answer: dict[str, Any]) -> None:
        status = answer["status"]
        if status == 0:
            return
        bundle = self._opened()
        if status == -Status.KERNEL and 0 <= answer.get("step", -1) < len(bundle.steps):
            step = bundle.steps[answer["step"]]
            raise BundleError(
                f"Kernel {step.kernel} of layer {step.layer} reported failure on {self.name} in {bundle.path}."
            )
        if status == -Status.DEVICE:
            reason = self._text("bnn_device_error", LONGEST_REASON)
            raise DeviceError(f"{self.name}: the network of {bundle.path} cannot run on the GPU: {reason}.")
        raise DeviceError(
            f"{self.name}: the network of {bundle.path} gave the status {-status} of bnn_model.h on {self._threads} "
            "threads; see whether the board has memory left."
        )

    def _text(self, function: str, limit: int) -> str:
        return self._checked_text(*self._ask("text", self.timeout, function=function, limit=limit))

    def _checked_text(self, answer: dict[str, Any], data: bytes) -> str:
        self._check_status(answer)
        if len(data) != answer["length"]:
            raise DeviceError(
                f"{self.name}: has a text of {answer['length']} bytes, more than expected; ask for fewer repeats."
            )
        return data.decode(errors="replace")

    def _check_description(self, bundle: Bundle) -> None:
        """The network that the board loaded is the one of the manifest."""
        text = self._text("bnn_describe", DESCRIPTION_BYTES)
        expected = {
            "inputs": [{"dtype": tensor.dtype, "shape": list(tensor.shape)} for tensor in bundle.inputs],
            "outputs": [{"dtype": tensor.dtype, "shape": list(tensor.shape)} for tensor in bundle.outputs],
            "steps": len(bundle.steps),
        }
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if found != expected:
            raise DeviceError(
                f"{self.name}: loaded another network than that of {bundle.path}; restart the server on the board."
            )

    def _check_processor(self, bundle: Bundle) -> None:
        """Without this, a missing instruction would end the server's process, which looks like a lost board."""
        flags = self.state().cpu_flags
        missing = bundle.missing_cpu_flags(flags) if flags else []
        if missing:
            raise BundleError(
                f"The bundle {bundle.path} is for target {bundle.target}, whose instructions {', '.join(missing)} the "
                f"processor of {self.name} lacks; compile the model for that board."
            )


def _arrays(array: np.ndarray, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    return {
        "input_shape": list(array.shape),
        "input_dtype": str(array.dtype),
        "output_shape": list(shape),
        "output_dtype": dtype,
    }


def _profile_bytes(bundle: Bundle, repeat: int) -> int:
    """Room for the profile's text: 24 bytes for a number, six for each character of a name, and what else it tells."""
    names = sum(len(step.kernel) + len(step.layer) for step in bundle.steps)
    needed = 24 * (repeat + 1) * (len(bundle.steps) + 1) + 6 * names + 100 * len(bundle.steps) + 2 * STATE_BYTES
    if needed > PROFILE_LIMIT_BYTES:
        raise InputError(
            f"A profile of {repeat} repeats of {len(bundle.steps)} kernels is more than the {PROFILE_LIMIT_BYTES >> 20} MiB "
            "that are fetched over RPC; ask for fewer repeats."
        )
    return needed
