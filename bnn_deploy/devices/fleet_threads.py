"""Asks several boards at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from bnn_deploy.errors import BnnDeployError

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_each(items: Sequence[Item], action: Callable[[Item], Result]) -> list[Result | BnnDeployError]:
    """``action`` of every item, each in a thread of its own.

    Returns:
        the results in the items' order, in place of one the error that a user may see.

    Raises:
        whatever else an action raised.
    """
    results: dict[int, Result | BnnDeployError] = {}
    defects: list[BaseException] = []

    def act(index: int) -> None:
        try:
            results[index] = action(items[index])
        except BnnDeployError as error:
            results[index] = error
        except BaseException as error:
            defects.append(error)

    threads = [threading.Thread(target=act, args=(index,), daemon=True) for index in range(len(items))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if defects:
        raise defects[0]
    return [results[index] for index in range(len(items))]
