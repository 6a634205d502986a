"""Reads profiles back from JSON: files from anywhere, so nothing in them is taken on trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from bnn_deploy.devices.gpu_information import GpuInformation
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import DeviceError, InputError
from bnn_deploy.profiling.model import (
    FORMAT,
    FORMAT_VERSION,
    KINDS,
    BoardReport,
    KernelTime,
    LostBoard,
    ProfileReport,
    Remark,
)
from bnn_deploy.profiling.spread import Spread

# A fleet of 64 boards with networks of 1000 kernels stays below this.
LARGEST_FILE = 64 * 2**20
LONGEST_TEXT = 100_000
LARGEST_NUMBER = 1e18


def read_profile(path: Path) -> ProfileReport:
    """The profile in a file that ``profile --format json`` printed.

    Raises:
        InputError: it cannot be read, or is no profile, or one of a newer format.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected the JSON of a profile.") from error
    if len(content) > LARGEST_FILE:
        raise InputError(f"{path}: is larger than {LARGEST_FILE >> 20} MiB, which no profile is; give the JSON of one.")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: is not JSON; give what `bnn-deploy profile BUNDLE --format json` printed, whole."
        ) from error
    return profile_from_json(value, str(path))


def profile_from_json(value: Any, where: str) -> ProfileReport:
    """The profile of ``ProfileReport.to_dict()``.

    Args:
        value: parsed JSON; keys that are not known are passed over.
        where: what errors call it.

    Raises:
        InputError: it is no profile, or one of a newer format.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise InputError(
            f'{where}: is no profile (its "format" is not {FORMAT!r}); give what `bnn-deploy profile BUNDLE --format json` '
            "printed."
        )
    version = value.get("format_version")
    if isinstance(version, bool) or version != FORMAT_VERSION:  # true is 1 to Python
        raise InputError(
            f"{where}: has format version {str(version)[:20]}, and this bnn-deploy reads version "
            f"{FORMAT_VERSION}; measure again, or use the version that wrote it."
        )
    fields = _Fields(value, where)
    shape = tuple(_Fields({"input_shape": size}, where).whole("input_shape") for size in fields.sequence("input_shape"))
    if not shape or 0 in shape:
        fields.fail("input_shape", "sizes of at least 1")
    boards = tuple(_board(entry) for entry in fields.entries("boards"))
    if not boards or len({board.board for board in boards}) < len(boards):
        fields.fail("boards", "one entry or more, of different names")
    return ProfileReport(
        created=fields.text("created"),
        version=fields.text("version"),
        model=fields.text("model"),
        model_sha256=fields.text("model_sha256"),
        input_shape=shape,
        target=fields.text("target"),
        architecture=fields.text("architecture"),
        device=fields.text("device"),
        threads=fields.whole("threads"),
        warmup=fields.whole("warmup"),
        repeat=fields.whole("repeat"),
        boards=boards,
        lost=tuple(LostBoard(entry.text("board"), entry.text("reason")) for entry in fields.entries("lost")),
    )


def _board(fields: _Fields) -> BoardReport:
    shares = fields.inner("share_by_kind")
    return BoardReport(
        board=fields.text("board"),
        emulated=fields.truth("emulated"),
        kernel_set=fields.text("kernel_set"),
        latency_ms=_spread(fields.inner("latency_ms")),
        kernels=tuple(_kernel(entry) for entry in fields.entries("kernels")),
        share_by_kind={kind: shares.number(kind) for kind in KINDS},
        binary_gmacs_per_s=fields.number("binary_gmacs_per_s"),
        fastest_gmacs_per_s=fields.number("fastest_gmacs_per_s"),
        processor_gmacs_per_s=fields.number("processor_gmacs_per_s") if fields.has("processor_gmacs_per_s") else None,
        copy_bytes_per_second=fields.number("copy_bytes_per_second") if fields.has("copy_bytes_per_second") else None,
        peak_memory_bytes=fields.whole("peak_memory_bytes") if fields.has("peak_memory_bytes") else None,
        before=_state(fields, "before"),
        after=_state(fields, "after"),
        warnings=tuple(Remark(entry.text("code"), entry.text("text")) for entry in fields.entries("warnings")),
        gpu=_gpu(fields),
    )


def _kernel(fields: _Fields) -> KernelTime:
    kind = fields.text("kind")
    if kind not in KINDS:
        fields.fail("kind", " or ".join(KINDS))
    return KernelTime(
        name=fields.text("name"),
        layer=fields.text("layer"),
        kind=kind,
        us=_spread(fields.inner("us")),
        share=fields.number("share"),
        bytes=fields.whole("bytes"),
        bmacs=fields.whole("bmacs"),
        gmacs_per_s=fields.number("gmacs_per_s"),
    )


def _spread(fields: _Fields) -> Spread:
    return Spread(
        median=fields.number("median"),
        min=fields.number("min"),
        p90=fields.number("p90"),
        quartiles=fields.pair("quartiles"),
        interval=fields.pair("interval") if fields.has("interval") else None,
        drift=fields.number("drift", smallest=-1.0),
    )


def _gpu(fields: _Fields) -> GpuInformation | None:
    value = fields.value.get("gpu")  # profiles of before are of processors only, and do not say so
    if value is None:
        return None
    try:
        return GpuInformation.from_json(value, f"{fields.where}: {fields.prefix}gpu")
    except DeviceError as error:
        raise InputError(str(error)) from error


def _state(fields: _Fields, name: str) -> SystemState | None:
    if not fields.has(name):
        return None
    value = fields.get(name)
    if not isinstance(value, dict):
        fields.fail(name, "an object")
    try:
        return SystemState.from_json(value, f"{fields.where}: {fields.prefix}{name}")
    except DeviceError as error:
        raise InputError(str(error)) from error


class _Fields:
    """An object in JSON; every access checks what is there, and says where in which file it is something else."""

    def __init__(self, value: Any, where: str, prefix: str = "") -> None:
        self.value, self.where, self.prefix = value, where, prefix
        if not isinstance(value, dict):
            raise InputError(
                f"{where}: {prefix.rstrip('.')} is not an object; the file is no whole profile, measure again."
            )

    def fail(self, name: str, expected: str) -> NoReturn:
        raise InputError(
            f"{self.where}: {self.prefix}{name} is not {expected}; the file is no whole profile, measure again."
        )

    def has(self, name: str) -> bool:
        """Whether it is there and not null."""
        return self.get(name) is not None

    def get(self, name: str) -> Any:
        if name not in self.value:
            self.fail(name, "there")
        return self.value[name]

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str) or len(value) > LONGEST_TEXT:
            self.fail(name, "a text")
        return value

    def truth(self, name: str) -> bool:
        value = self.get(name)
        if not isinstance(value, bool):
            self.fail(name, "true or false")
        return value

    def whole(self, name: str) -> int:
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_NUMBER:
            self.fail(name, "a whole number of at least 0")
        return value

    def number(self, name: str, smallest: float = 0.0) -> float:
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not smallest <= value <= LARGEST_NUMBER:
            self.fail(name, f"a number of at least {smallest:g}")
        return float(value)

    def sequence(self, name: str) -> list[Any]:
        value = self.get(name)
        if not isinstance(value, list):
            self.fail(name, "a list")
        return value

    def pair(self, name: str) -> tuple[float, float]:
        values = self.sequence(name)
        if len(values) != 2:
            self.fail(name, "a list of two numbers")
        low, high = (_Fields({name: value}, self.where, self.prefix).number(name) for value in values)
        if low > high:
            self.fail(name, "in order")
        return low, high

    def inner(self, name: str) -> _Fields:
        return _Fields(self.get(name), self.where, f"{self.prefix}{name}.")

    def entries(self, name: str) -> list[_Fields]:
        return [
            _Fields(entry, self.where, f"{self.prefix}{name}[{index}].")
            for index, entry in enumerate(self.sequence(name))
        ]
