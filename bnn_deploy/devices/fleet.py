"""Several boards that share out batches: each batch counts once, whoever runs it, and a board that dies is left out."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import BoardUse, DeviceProfile, Session
from bnn_deploy.devices.fleet_threads import on_each
from bnn_deploy.devices.rpc_board import RpcBoard
from bnn_deploy.errors import BnnDeployError, DeviceError
from bnn_deploy.progress import ReportProgress

# Batches taken from the caller and not yet given back, per board: one that it runs, one that waits for it, and as many again
# for results that came before their turn.
BATCHES_AHEAD = 4

Result = TypeVar("Result")


class _Member:
    """One board of a fleet, and what it did."""

    def __init__(self, board: RpcBoard) -> None:
        self.board = board
        self.images = 0
        self.seconds = 0.0
        self.lost = ""

    def use(self) -> BoardUse:
        return BoardUse(self.board.name, self.images, self.seconds, self.lost)


class FleetSession(Session):
    """A bundle on several boards at once.

    Args:
        bundle: what to run.
        threads: threads per inference on each board.
        boards: connected; closed with the session.
        lost: names of boards that could not be connected to, and why.
        progress: told what is copied where, and which boards the session goes on without.

    Raises:
        BnnDeployError: the bundle cannot run on any of the boards.
    """

    def __init__(
        self, bundle: Bundle, threads: int, boards: list[RpcBoard], lost: dict[str, str], progress: ReportProgress
    ) -> None:
        super().__init__(bundle, threads)
        self._members = [_Member(board) for board in boards]
        self._unreachable = [BoardUse(name, 0, 0.0, reason) for name, reason in lost.items()]
        self._progress = progress
        try:
            progress(f"copying {bundle.library.stat().st_size} bytes to each of {len(boards)} boards")
            self._on_all(lambda board: board.load(bundle, threads))
        except BaseException:
            self.close()
            raise

    def run(self, array: np.ndarray) -> np.ndarray:
        """See ``Session.run``."""
        return next(iter(self.run_many([array])))

    def run_many(self, arrays: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """See ``Session.run_many``; ``arrays`` is read by the caller's thread, a few batches ahead."""
        return _Sharing(self._alive(), self._lose).run(iter(arrays))

    def run_tapped(
        self, array: np.ndarray, taps: np.ndarray, total_bytes: int, forced: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Session.run_tapped``; on the first board that is left, since what is compared must come from one."""
        for member in self._alive():
            start = time.monotonic()
            try:
                results = member.board.run_tapped(array, taps, total_bytes, forced)
            except DeviceError as error:
                self._lose(member, error)
                continue
            member.images += len(array)
            member.seconds += time.monotonic() - start
            return results
        raise all_lost(self._members)

    def profile(self, *, repeat: int = 20, warmup: int = 3) -> list[DeviceProfile]:
        """See ``Session.profile``; all boards at the same time."""
        return self._on_all(lambda board: board.profile(repeat, warmup))

    def boards(self) -> tuple[BoardUse, ...]:
        """See ``Session.boards``."""
        return (*(member.use() for member in self._members), *self._unreachable)

    def close(self) -> None:
        """See ``Session.close``."""
        on_each(self._members, lambda member: member.board.close())

    def _alive(self) -> list[_Member]:
        return [member for member in self._members if not member.lost]

    def _lose(self, member: _Member, error: BnnDeployError) -> None:
        member.lost = str(error)
        member.board.kill()
        self._progress(f"lost a board, going on without it: {error}")

    def _on_all(self, action: Callable[[RpcBoard], Result]) -> list[Result]:
        """The results of an action on all boards that are left; those that fail are lost, unless all do."""
        members = self._alive()
        results: list[Result] = []
        errors: list[BnnDeployError] = []
        for member, result in zip(members, on_each(members, lambda member: action(member.board)), strict=True):
            if isinstance(result, BnnDeployError):
                errors.append(result)
                self._lose(member, result)
            else:
                results.append(result)
        if not results:
            raise errors[0] if len(self._members) == 1 and errors else all_lost(self._members)
        return results


def all_lost(members: list[_Member]) -> DeviceError:
    """One sentence about what became of the boards; those with the same fate are named together."""
    fates: dict[str, list[str]] = {}
    for member in members:
        name = member.board.name
        fates.setdefault(member.lost.removeprefix(f"{name}: ").rstrip("."), []).append(name)
    reasons = "; ".join(f"{', '.join(names)}: {fate}" for fate, names in fates.items())
    return DeviceError(f"None of the {len(members)} boards is left: {reasons}.")


class _Sharing:
    """Shares the batches of one ``run_many`` out.

    The caller's thread reads the batches and hands them out as a generator; each board has a thread that takes the oldest
    batch nobody runs. All that they share is under one lock.
    """

    def __init__(self, members: list[_Member], lose: Callable[[_Member, BnnDeployError], None]) -> None:
        self._members = members
        self._lose = lose
        self._changed = threading.Condition()
        self._waiting: list[int] = []  # heap of the numbers of batches that nobody runs
        self._batches: dict[int, np.ndarray] = {}  # those without a result
        self._results: dict[int, np.ndarray] = {}  # those that were not handed out yet
        self._error: BaseException | None = None
        self._over = False

    def run(self, arrays: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """See ``Session.run_many``."""
        threads = [threading.Thread(target=self._serve, args=(member,), daemon=True) for member in self._members]
        for thread in threads:
            thread.start()
        try:
            yield from self._hand_out(arrays)
        except KeyboardInterrupt:
            for member in self._members:
                member.board.kill()
            raise
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
            for thread in threads:
                thread.join()

    def _hand_out(self, arrays: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        read, given, exhausted = 0, 0, False
        while True:
            while not exhausted and read - given < BATCHES_AHEAD * len(self._members):
                try:
                    array = next(arrays)
                except StopIteration:
                    exhausted = True
                    break
                with self._changed:
                    self._batches[read] = array
                    heapq.heappush(self._waiting, read)
                    self._changed.notify_all()
                read += 1
            if exhausted and given == read:
                return
            result = self._wait_for(given)
            given += 1
            yield result

    def _wait_for(self, number: int) -> np.ndarray:
        with self._changed:
            self._changed.wait_for(lambda: number in self._results or self._error is not None or self._all_lost())
            if number not in self._results:
                raise self._error or all_lost(self._members)
            return self._results.pop(number)

    def _all_lost(self) -> bool:
        return all(member.lost for member in self._members)

    def _serve(self, member: _Member) -> None:
        """The life of one board's thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._over or self._error is not None)
                if self._over or self._error is not None:
                    return
                number = heapq.heappop(self._waiting)
                array = self._batches[number]
            start = time.monotonic()
            try:
                result = member.board.run(array)
            except DeviceError as error:
                with self._changed:
                    self._lose(member, error)
                    heapq.heappush(self._waiting, number)
                    self._changed.notify_all()
                return
            except BaseException as error:
                with self._changed:
                    self._error = self._error or error
                    self._changed.notify_all()
                return
            with self._changed:
                del self._batches[number]
                self._results[number] = result
                member.images += len(array)
                member.seconds += time.monotonic() - start
                self._changed.notify_all()
