"""Names of a package that are imported when they are first asked for, so that importing the package costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose names lie in modules that take long to import.

    Type checkers see nothing of it: the package imports the same names under ``if TYPE_CHECKING``, and lists them in ``__all__``.

    Args:
        package: ``__name__`` of the package.
        homes: of every name, the module that defines it.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        # Kept, so that this is asked once.
        setattr(import_module(package), name, value)
        return value

    return find
