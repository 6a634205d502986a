"""What all HTML pages share: one file that loads nothing from anywhere, whose text is escaped, with its data inside."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bnn_deploy.report.text import size_text


def render(template: str, title: str, data: dict[str, Any], **values: Any) -> bytes:
    """The page that ``template`` makes of ``values`` on top of ``page.html.jinja``, in UTF-8.

    Args:
        template: name of its file in this package.
        title: of the page, plain text.
        data: what the page carries as JSON, for other programs.
        values: what the template shows; text in them is escaped.
    """
    script = _read("page.js")
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["digits"] = lambda value: f"{value:.4g}"
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    environment.filters["grouped"] = lambda value: f"{value:,}"
    environment.filters["bytes"] = size_text
    page = environment.get_template(template).render(
        title=title,
        style=Markup(_read("page.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=embedded_json(data),
        **values,
    )
    # Half a surrogate, which a name may have, is no character of UTF-8.
    return page.encode(errors="replace")


def embedded_json(data: dict[str, Any]) -> Markup:
    """JSON that can stand in a ``<script>`` element: nothing in it ends the element or starts a comment."""
    text = json.dumps(data, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _read(name: str) -> str:
    return files("bnn_deploy.report").joinpath(name).read_text(encoding="utf-8")
