"""Draws docs/images/architecture.svg from the imports as they are: ``python -m tests.docs.architecture_picture``.

Each row is a floor of ``tests.source_tree.FLOORS``, each box a package or a module that stands alone, with the first words of its
own docstring. An arrow means "imports"; those that follow from others, and those to the ground floor, are left out.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

from tests.source_tree import FLOORS, ROOT, package_graph, reachable

PICTURE = ROOT / "docs" / "images" / "architecture.svg"
WIDTH, MARGIN = 1240, 20
BOX_HEIGHT, ROW_HEIGHT, GAP = 74, 112, 16
WIDEST, CAPTION_LINES = 228, 3
CHARACTER = 5.6  # of a caption, in pixels, rounded up
STYLE = """
svg { background: #ffffff; font-family: Helvetica, Arial, sans-serif; }
rect { fill: #f2f6fb; stroke: #5b7a99; } .ground rect { fill: #eeeeee; stroke: #888888; }
.name { font: bold 13px monospace; fill: #14293d; } .caption { font-size: 10.5px; fill: #3c4c5c; }
path { fill: none; stroke: #7d93a8; stroke-width: 1.2; marker-end: url(#head); }
"""


def caption(place: str) -> str:
    """The first clause of what the package or module says of itself."""
    path = ROOT / place
    source = (path if path.suffix == ".py" else path / "__init__.py").read_text(encoding="utf-8")
    first = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0].replace("``", "").replace("\n", " ")
    return re.split(r"[.;?](?:\s|$)", first)[0]


def arrows() -> dict[str, set[str]]:
    """Imports between places above the ground, without those that follow from others."""
    ground = set(FLOORS[0])
    graph = {place: others - ground for place, others in package_graph().items() if place not in ground}
    return {
        place: {
            other for other in others if not any(other in reachable(graph, between) for between in others - {other})
        }
        for place, others in graph.items()
    }


def ordered_rows(edges: dict[str, set[str]]) -> list[list[str]]:
    """The floors above the ground, bottom first; in each, boxes stand near those that they have arrows to."""
    rows = [sorted(floor) for floor in FLOORS[1:]]
    place_in_row = {place: index / len(row) for row in rows for index, place in enumerate(row)}
    for _ in range(12):
        for row in rows:
            for place in row:
                near = edges.get(place, set()) | {other for other, others in edges.items() if place in others}
                if near:
                    place_in_row[place] = sum(place_in_row[other] for other in sorted(near)) / len(near)
            row.sort(key=lambda place: (place_in_row[place], place))
            place_in_row.update({place: (index + 0.5) / len(row) for index, place in enumerate(row)})
    return rows


def boxes(rows: list[list[str]]) -> dict[str, tuple[float, float, float]]:
    """Left, top and width of every box."""
    places = {}
    for index, row in enumerate(rows):
        width = min(WIDEST, (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row))
        left = (WIDTH - width * len(row) - GAP * (len(row) - 1)) / 2
        top = MARGIN + (len(rows) - 1 - index) * ROW_HEIGHT
        for number, place in enumerate(row):
            places[place] = (left + number * (width + GAP), top, width)
    return places


def drawn_box(name: str, text: str, left: float, top: float, width: float) -> str:
    lines = textwrap.wrap(text, int((width - 16) / CHARACTER), max_lines=CAPTION_LINES, placeholder=" …")
    words = "".join(
        f'<text class="caption" x="{left + 8:.0f}" y="{top + 35 + 14 * number:.0f}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="6"/>'
        f'<text class="name" x="{left + 8:.0f}" y="{top + 18:.0f}">{escape(name)}</text>{words}'
    )


def drawn_arrows(edges: dict[str, set[str]], places: dict[str, tuple[float, float, float]]) -> list[str]:
    """Curves from the lower edge of who imports to the upper edge of what is imported, side by side on each edge."""
    pairs = [
        (place, other) for place in places for other in sorted(edges.get(place, ()), key=lambda name: places[name])
    ]
    leaving = {place: [pair for pair in pairs if pair[0] == place] for place in places}
    coming = {
        place: sorted((pair for pair in pairs if pair[1] == place), key=lambda pair: places[pair[0]][0])
        for place in places
    }

    def anchor(place: str, pair: tuple[str, str], all_pairs: list[tuple[str, str]]) -> float:
        left, _, width = places[place]
        return left + width * (all_pairs.index(pair) + 1) / (len(all_pairs) + 1)

    curves = []
    for pair in pairs:
        start, end = anchor(pair[0], pair, leaving[pair[0]]), anchor(pair[1], pair, coming[pair[1]])
        if places[pair[0]][1] == places[pair[1]][1]:
            # On one floor: below both boxes.
            low = places[pair[0]][1] + BOX_HEIGHT
            curves.append(
                f'<path d="M{start:.0f} {low:.0f} C{start:.0f} {low + 36:.0f} {end:.0f} {low + 36:.0f} {end:.0f} {low + 2:.0f}"/>'
            )
            continue
        high, low = places[pair[0]][1] + BOX_HEIGHT, places[pair[1]][1] - 2
        bend = (low - high) / 2
        curves.append(
            f'<path d="M{start:.0f} {high:.0f} C{start:.0f} {high + bend:.0f} {end:.0f} {low - bend:.0f} {end:.0f} {low:.0f}"/>'
        )
    return curves


def picture() -> str:
    """The SVG."""
    edges = arrows()
    rows = ordered_rows(edges)
    places = boxes(rows)
    ground_top = MARGIN + len(rows) * ROW_HEIGHT - 20
    height = ground_top + BOX_HEIGHT + MARGIN
    names = ", ".join(Path(place).stem for place in sorted(FLOORS[0]) if not place.endswith("__init__.py"))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title">',
        '<title id="title">The packages of bnn-deploy by floors, and who imports whom</title>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<polygon points="0,0 8,4 0,8" fill="#7d93a8"/></marker></defs>',
        f'<rect x="0" y="0" width="{WIDTH}" height="{height}" style="fill: #ffffff; stroke: none"/>',
        *drawn_arrows(edges, places),
        *(
            drawn_box(
                place.removeprefix("bnn_deploy/") + ("" if place.endswith(".py") else "/"),
                caption(place),
                *places[place],
            )
            for row in rows
            for place in row
        ),
        '<g class="ground">',
        drawn_box("the ground", f"What all of them may import: {names}", MARGIN, ground_top, WIDTH - 2 * MARGIN),
        "</g></svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
