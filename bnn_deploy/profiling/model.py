"""A profile: what was measured of a bundle, board by board. docs/schemas/profile.schema.json describes its JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bnn_deploy.devices.gpu_information import GpuInformation
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.profiling.spread import Spread

FORMAT = "bnn_deploy.profile"
FORMAT_VERSION = 1

# Of kernels: popcount; sign and bitpack, the glue between the layers on bits; everything else.
KINDS = ("binary", "pack", "float")


@dataclass(frozen=True)
class Remark:
    """Something about a board or a run that makes its times worth less.

    Attributes:
        code: one word for programs: "emulated", "throttled", "clock", "governor", "temperature", "load" or "noise".
        text: a sentence for people, with what to do.
    """

    code: str
    text: str


@dataclass(frozen=True)
class KernelTime:
    """One kernel call of the plan.

    Attributes:
        name: C symbol of the kernel.
        layer: path of the PyTorch layers (or name of the ONNX nodes) that it computes.
        kind: "binary" (popcount), "pack" (sign and bitpack) or "float".
        us: microseconds of the call.
        share: its part of the kernels' summed median time; all together 1, or 0 when no time passed.
        bytes: of all buffers that the call reads and writes, 0 if the bundle does not say.
        bmacs: binary multiply-accumulates of the call.
        gmacs_per_s: 1e9 binary multiply-accumulates per second at the median, 0 if it makes none.
    """

    name: str
    layer: str
    kind: str
    us: Spread
    share: float
    bytes: int
    bmacs: int
    gmacs_per_s: float


@dataclass(frozen=True)
class BoardReport:
    """What one board measured.

    Attributes:
        board: its name.
        emulated: measured under an emulator; then no time in here is a latency.
        kernel_set: which of the bundle's kernel sets its processor got; "" when the bundle has one.
        latency_ms: wall-clock milliseconds of one call on one batch.
        kernels: in the order of execution.
        share_by_kind: part of the kernels' summed time, by kind; sums to 1.
        binary_gmacs_per_s: all binary multiply-accumulates over the summed time of the binary kernels, in 1e9; 0 without.
        fastest_gmacs_per_s: the same of the fastest kernel among those that make at least a thousandth of them: what this
            processor was seen to do.
        processor_gmacs_per_s: what it can do at its clock and on the threads used, as the bundle's target says; None if
            unknown.
        copy_bytes_per_second: bandwidth of copying memory larger than most caches, read and written bytes together; None if
            not measured.
        peak_memory_bytes: largest resident size of the process that ran the network, None if unknown.
        before, after: the board's state before the warm-up runs and right after the last repeat, None if unknown.
        warnings: what makes these times worth less.
        gpu: what the kernels ran on, None for a processor.
    """

    board: str
    emulated: bool
    kernel_set: str
    latency_ms: Spread
    kernels: tuple[KernelTime, ...]
    share_by_kind: dict[str, float]
    binary_gmacs_per_s: float
    fastest_gmacs_per_s: float
    processor_gmacs_per_s: float | None
    copy_bytes_per_second: float | None
    peak_memory_bytes: int | None
    before: SystemState | None
    after: SystemState | None
    warnings: tuple[Remark, ...]
    gpu: GpuInformation | None = None

    @property
    def ran_on(self) -> str:
        """ "processor" or "GPU"."""
        return "processor" if self.gpu is None else "GPU"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        result = {name: getattr(self, name) for name in self.__dataclass_fields__}
        result["latency_ms"] = asdict(self.latency_ms)
        result["kernels"] = [asdict(kernel) for kernel in self.kernels]
        result["warnings"] = [asdict(warning) for warning in self.warnings]
        for name, state in (("before", self.before), ("after", self.after), ("gpu", self.gpu)):
            result[name] = None if state is None else state.to_dict()
        return result


@dataclass(frozen=True)
class LostBoard:
    """A board of a fleet that measured nothing, and why in one sentence."""

    board: str
    reason: str


@dataclass(frozen=True)
class ProfileReport:
    """Result of ``profile_bundle``.

    Attributes:
        created: when it was measured, ISO 8601 in UTC.
        version: of bnn-deploy.
        model: its name, "" if the ONNX file has none.
        model_sha256: of the ONNX file, "" if unknown.
        input_shape: of the network's input, batch included.
        target, architecture: what the bundle was compiled for.
        device: what the user named.
        threads: per inference.
        warmup, repeat: runs before the timed ones, and timed runs.
        boards: one for each board that measured; a single machine is one board.
        lost: boards of a fleet that could not be reached, or failed.
    """

    created: str
    version: str
    model: str
    model_sha256: str
    input_shape: tuple[int, ...]
    target: str
    architecture: str
    device: str
    threads: int
    warmup: int
    repeat: int
    boards: tuple[BoardReport, ...]
    lost: tuple[LostBoard, ...] = ()

    @property
    def batch(self) -> int:
        """Images in one call."""
        return self.input_shape[0]

    def to_dict(self) -> dict[str, Any]:
        """As JSON; ``profile_from_json`` reads it back."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields["input_shape"] = list(self.input_shape)
        fields["boards"] = [board.to_dict() for board in self.boards]
        fields["lost"] = [asdict(board) for board in self.lost]
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **fields}
