"""Names that try to break out of whatever they are written into."""

from __future__ import annotations

NASTY = (
    "<script>document.title = 'owned'</script>",
    "</script ><img src=x onerror=\"document.title='owned'\">",
    "quotes \" and ' and `, commas, too",
    "line\nbreak\ttab",
    "=cmd|' /C calc'!A0",
    "$x_1$ {{ 7 * 7 }} {% raw %} \\frac & &amp; ]]> --> %s {0}",
    "Schicht für 二値 слой \U0001f916 \u202e \u2028 \u00a0",
    "@sum(a)",
    "-1+1",
    "<!--<script ",
    "a" * 3000,
)
