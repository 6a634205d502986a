"""Reads profiles back from JSON: files from anywhere, so nothing in them is taken on trust."""

from __future__ import annotations

from pathlib import Path

from bnn_deploy.checked_fields import (
    Fields,
    Unfit,
    choice,
    flag,
    list_of,
    number,
    optional,
    read_json,
    text,
    whole,
)
from bnn_deploy.devices.gpu_information import GpuInformation
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import InputError, printable
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


def read_profile(path: Path) -> ProfileReport:
    """The profile in a file that ``profile --format json`` printed.

    Raises:
        InputError: it cannot be read, or is no profile, or one of a newer format.
    """

    def refuse(problem: str) -> InputError:
        return InputError(f"{path}: {problem}; give what `bnn-deploy profile BUNDLE --format json` printed, whole.")

    return profile_from_json(read_json(path, LARGEST_FILE, refuse), str(path))


def profile_from_json(value: object, where: str) -> ProfileReport:
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
            f"{where}: has format version {printable(str(version), 20)}, and this bnn-deploy reads version "
            f"{FORMAT_VERSION}; measure again, or use the version that wrote it."
        )
    fields = Fields(
        value, lambda problem: InputError(f"{where}: {problem}; the file is no whole profile, measure again.")
    )
    boards = tuple(map(_board, fields.objects("boards")))
    if not boards or len({board.board for board in boards}) < len(boards):
        raise fields.refusal("boards", "one entry or more, of different names")
    return ProfileReport(
        created=fields.take("created", text),
        version=fields.take("version", text),
        model=fields.take("model", text),
        model_sha256=fields.take("model_sha256", text),
        input_shape=fields.take("input_shape", list_of(whole(1), least=1)),
        target=fields.take("target", text),
        architecture=fields.take("architecture", text),
        device=fields.take("device", text),
        threads=fields.take("threads", whole()),
        warmup=fields.take("warmup", whole()),
        repeat=fields.take("repeat", whole()),
        boards=boards,
        lost=tuple(
            LostBoard(entry.take("board", text), entry.take("reason", text)) for entry in fields.objects("lost")
        ),
    )


def _board(fields: Fields) -> BoardReport:
    shares = fields.inner("share_by_kind")
    return BoardReport(
        board=fields.take("board", text),
        emulated=fields.take("emulated", flag),
        kernel_set=fields.take("kernel_set", text),
        latency_ms=_spread(fields.inner("latency_ms")),
        kernels=tuple(map(_kernel, fields.objects("kernels"))),
        share_by_kind={kind: shares.take(kind, number()) for kind in KINDS},
        binary_gmacs_per_s=fields.take("binary_gmacs_per_s", number()),
        fastest_gmacs_per_s=fields.take("fastest_gmacs_per_s", number()),
        processor_gmacs_per_s=fields.take("processor_gmacs_per_s", optional(number())),
        copy_bytes_per_second=fields.take("copy_bytes_per_second", optional(number())),
        peak_memory_bytes=fields.take("peak_memory_bytes", optional(whole())),
        before=_state(fields, "before"),
        after=_state(fields, "after"),
        warnings=tuple(
            Remark(entry.take("code", text), entry.take("text", text)) for entry in fields.objects("warnings")
        ),
        # Profiles of before are of processors only, and do not say so.
        gpu=GpuInformation.from_fields(fields.inner("gpu")) if fields.has("gpu") else None,
    )


def _kernel(fields: Fields) -> KernelTime:
    return KernelTime(
        name=fields.take("name", text),
        layer=fields.take("layer", text),
        kind=fields.take("kind", choice(*KINDS)),
        us=_spread(fields.inner("us")),
        share=fields.take("share", number()),
        bytes=fields.take("bytes", whole()),
        bmacs=fields.take("bmacs", whole()),
        gmacs_per_s=fields.take("gmacs_per_s", number()),
    )


def _spread(fields: Fields) -> Spread:
    return Spread(
        median=fields.take("median", number()),
        min=fields.take("min", number()),
        p90=fields.take("p90", number()),
        quartiles=fields.take("quartiles", _pair),
        interval=fields.take("interval", optional(_pair)),
        drift=fields.take("drift", number(-1.0)),
    )


def _pair(value: object) -> tuple[float, float]:
    low, high = list_of(number(), least=2, most=2)(value)
    if low > high:
        raise Unfit(value, "two numbers in order")
    return low, high


def _state(fields: Fields, name: str) -> SystemState | None:
    missing = fields.take(name, lambda value: value is None)
    return None if missing else SystemState.from_fields(fields.inner(name))
