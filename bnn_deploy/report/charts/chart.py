"""What every chart is: a height, and something that draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import FigureBase


@dataclass(frozen=True)
class Chart:
    """A chart that is not drawn yet.

    Attributes:
        height: inches that it needs; all charts are ``style.WIDTH`` wide.
        draw: draws it into an empty figure, within ``style.settings``; the title of its first axes names it.
    """

    height: float
    draw: Callable[[FigureBase], None]
