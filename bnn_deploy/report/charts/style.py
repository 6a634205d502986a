"""Colours and fonts that all charts share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# The page replaces each of these by the CSS variable of its name, so that charts follow light and dark; see page.css.
# Blue, orange and grey-green can be told apart with every kind of colour blindness, and by their lightness on paper.
COLOURS = {
    "ink": "#1b1f27",
    "quiet": "#5c6574",
    "rule": "#d4d9e1",
    "binary": "#1f5fa8",
    "pack": "#ab5a0a",
    "float": "#5f756a",
    "bad": "#a4161a",
    # Text on a bar.
    "on": "#fdfdfd",
}

# Width of every chart in inches; the page scales them to its own.
WIDTH = 9.5

SETTINGS: dict[RcKeyType, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": COLOURS["quiet"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.titlecolor": COLOURS["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": COLOURS["ink"],
    # Names of layers are not formulas.
    "text.parse_math": False,
    "xtick.color": COLOURS["quiet"],
    "ytick.color": COLOURS["quiet"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
    "axes.unicode_minus": False,
    "svg.fonttype": "none",
    # Equal charts are equal bytes.
    "svg.hashsalt": "bnn-deploy",
}


@contextmanager
def settings() -> Iterator[None]:
    """To be active while a chart is drawn and while it is saved."""
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        # A character that the font lacks is a box in pictures; browsers have other fonts, and the tables the name in full.
        warnings.filterwarnings("ignore", message="Glyph")
        yield
