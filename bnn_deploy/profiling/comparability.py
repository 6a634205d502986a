"""May two profiles be compared, which boards of them, and what stands against comparing them."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from bnn_deploy.errors import InputError
from bnn_deploy.profiling.model import BoardReport, ProfileReport
from bnn_deploy.profiling.spread import FEWEST_FOR_INTERVAL

# Repeats that took less than this together are all in one state of a machine whose states change by then.
SHORTEST_SECONDS = 0.02


def check_comparable(before: ProfileReport, after: ProfileReport) -> None:
    """Two profiles of one network and batch, with enough repeats.

    Raises:
        InputError: they are not.
    """
    for what, a, b in (
        ("input", "x".join(map(str, before.input_shape)), "x".join(map(str, after.input_shape))),
        ("model", before.model or "a model without a name", after.model or "a model without a name"),
    ):
        if a != b:
            raise InputError(f"The profiles are of different networks: {what} {a} and {b}; compare two of the same.")
    first, second = before.boards[0], after.boards[0]
    same_layers = _working(first) <= _layers(second) and _working(second) <= _layers(first)
    if _bmacs(first) != _bmacs(second) or not same_layers:
        raise InputError(
            f"The profiles are of different networks: {_work_text(first)}, and {_work_text(second)}, or layers of other "
            "names; compare two of the same model."
        )
    if min(before.repeat, after.repeat) < FEWEST_FOR_INTERVAL or not (_judgeable(before) and _judgeable(after)):
        raise InputError(
            f"The profiles have {before.repeat} and {after.repeat} repeats, and noise can be told from change only with "
            f"{FEWEST_FOR_INTERVAL} or more; measure with more --repeat."
        )


def pairs_of_boards(before: ProfileReport, after: ProfileReport) -> list[tuple[BoardReport, BoardReport]]:
    """A single board and a single board, whatever they are called; boards of fleets by name.

    Raises:
        InputError: there are none.
    """
    if len(before.boards) == len(after.boards) == 1:
        return [(before.boards[0], after.boards[0])]
    others = {board.board: board for board in after.boards}
    pairs = [(board, others[board.board]) for board in before.boards if board.board in others]
    if not pairs:
        raise InputError(
            f"The profiles have no board in common: {_names(before.boards)} and {_names(after.boards)}; compare profiles of "
            "the same boards, or of one board each."
        )
    return pairs


def differences(before: ProfileReport, after: ProfileReport) -> list[str]:
    """A sentence on everything else that differs, and on everything that makes the times of either worth less."""
    found = []
    for what, a, b in (
        ("targets", before.target, after.target),
        ("devices", before.device, after.device),
        ("numbers of threads", str(before.threads), str(after.threads)),
        ("versions of bnn-deploy", before.version, after.version),
        ("weights or exports of the model", before.model_sha256[:12], after.model_sha256[:12]),
    ):
        if a != b:
            found.append(f"The profiles have different {what}: {a or 'unknown'} and {b or 'unknown'}.")
    for letter, report in (("A", before), ("B", after)):
        for board in report.boards:
            name = f"{letter} ({board.board})" if len(report.boards) > 1 else letter
            seconds = report.repeat * board.latency_ms.median * 1e-3
            if 0 < seconds < SHORTEST_SECONDS:
                found.append(
                    f"{name}: its {report.repeat} repeats took {1e3 * seconds:.2g} ms together, so that whatever else the "
                    f"machine did in that moment counts; measure with --repeat {ceil(SHORTEST_SECONDS / seconds * report.repeat)}."
                )
            found += [f"{name}: {remark.text}" for remark in board.warnings]
    return found


def left_out(
    before: ProfileReport, after: ProfileReport, pairs: Sequence[tuple[BoardReport, BoardReport]]
) -> list[str]:
    """A sentence on the boards that have no partner, if there are any."""
    compared = {board.board for pair in pairs for board in pair}
    left = [board for board in (*before.boards, *after.boards) if board.board not in compared]
    return [f"Not compared, as only one profile has them: {_names(left)}."] if left else []


def _judgeable(report: ProfileReport) -> bool:
    times = (
        spread for board in report.boards for spread in (board.latency_ms, *(kernel.us for kernel in board.kernels))
    )
    return all(spread.interval is not None for spread in times)


def _bmacs(board: BoardReport) -> int:
    return sum(kernel.bmacs for kernel in board.kernels)


def _layers(board: BoardReport) -> set[str]:
    return {name for kernel in board.kernels for name in kernel.layer.split(" + ")}


def _working(board: BoardReport) -> set[str]:
    """Layers of the binary kernels, or all if there are none.

    Targets fuse other layers into them, and so no two need have the same; but what one has, the other has somewhere.
    """
    kernels = [kernel for kernel in board.kernels if kernel.bmacs] or board.kernels
    return {name for kernel in kernels for name in kernel.layer.split(" + ")}


def _work_text(board: BoardReport) -> str:
    return f"{len(_layers(board))} layers with {_bmacs(board) / 1e6:.3f} million binary multiply-accumulates"


def _names(boards: Sequence[BoardReport]) -> str:
    return ", ".join(board.board for board in boards)
