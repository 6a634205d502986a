"""A chart as SVG that stands in a page: its colours are the page's, its text is text, and every mark says what it is."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.figure import Figure

from bnn_deploy.report.charts.chart import Chart
from bnn_deploy.report.charts.style import COLOURS, WIDTH, settings

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def svg(name: str, chart: Chart, description: str) -> Markup:
    """The ``<svg>`` element of a chart, to stand in a page as it is.

    Args:
        name: different for each one of a page: the first part of all its ids.
        chart: what is drawn.
        description: what a reader who cannot see it must know.
    """
    with settings():
        figure = Figure(figsize=(WIDTH, chart.height), layout="constrained")
        chart.draw(figure)
        heading = figure.axes[0].get_title(loc="left")
        stream = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return _for_page(ElementTree.fromstring(stream.getvalue()), name, heading, description)


def _for_page(root: ElementTree.Element, name: str, heading: str, description: str) -> Markup:
    for size in ("width", "height"):
        root.attrib.pop(size)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-description")
    for index, element in enumerate(list(root.iter())):
        identifier = element.get("id", "")
        # matplotlib numbers its own ids (patch_3); ours are sentences.
        if " " in identifier:
            ElementTree.SubElement(element, f"{{{SVG}}}title").text = identifier
            identifier = f"mark_{index}"
        if identifier:
            element.set("id", f"{name}-{identifier}")
        for key, value in element.attrib.items():
            if key == f"{{{XLINK}}}href":
                element.set(key, value.replace("#", f"#{name}-"))
            elif key == "clip-path":
                element.set(key, value.replace("url(#", f"url(#{name}-"))
            elif key in ("style", "fill", "stroke"):
                element.set(key, _with_variables(value))
    for position, (tag, text) in enumerate((("title", heading), ("desc", description))):
        child = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{'title' if tag == 'title' else 'description'}"})
        child.text = text
        root.insert(position, child)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _with_variables(style: str) -> str:
    for variable, colour in COLOURS.items():
        style = re.sub(colour, f"var(--{variable})", style, flags=re.IGNORECASE)
    return style
