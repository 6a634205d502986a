"""The HTML report, looked at in a real browser that has no network."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bnn_deploy.profiling.comparison import compare
from bnn_deploy.profiling.model import LostBoard, ProfileReport
from bnn_deploy.report import profile_page as module
from bnn_deploy.report.profile_page import comparison_page, profile_page
from tests.report.browser import Browser, show

pytestmark = pytest.mark.browser

ROWS = """[...document.querySelectorAll("section.kernels tbody tr")].filter(row => !row.hidden).map(
    row => [...row.cells].map(cell => cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value)))"""
TEXTS = (
    '[...document.querySelectorAll("section.kernels tbody tr")].map(row => [...row.cells].map(cell => cell.innerText))'
)


def test_numbers_are_those_of_the_json(profile: ProfileReport, browser: Browser, tmp_path: Path) -> None:
    """Breaks if the page shows another number than the JSON has, in the table, the headline or the data it carries."""
    show(browser, profile_page(profile), tmp_path)
    (board,) = profile.boards
    assert json.loads(browser.evaluate('document.getElementById("data").textContent')) == {
        "profile": json.loads(json.dumps(profile.to_dict()))
    }
    rows = browser.evaluate(ROWS)
    assert len(rows) == len(board.kernels)
    for step, (row, text, kernel) in enumerate(zip(rows, browser.evaluate(TEXTS), board.kernels, strict=True)):
        assert row == [
            step,
            kernel.layer,
            kernel.kind,
            kernel.us.median,
            kernel.us.relative_range,
            kernel.share,
            kernel.bmacs,
            kernel.gmacs_per_s,
            kernel.bytes,
            kernel.name,
        ]
        # What is seen, not only what is sorted by.
        assert float(text[3]) == pytest.approx(kernel.us.median, rel=5e-4)
        assert float(text[5].rstrip("%")) == pytest.approx(100 * kernel.share, abs=0.051)
        assert text[6] == (f"{kernel.bmacs / 1e6:.3f}" if kernel.bmacs else "\u2013")
    headline = browser.evaluate('document.querySelector("dd.latency").firstChild.textContent')
    assert float(headline.split()[0]) == pytest.approx(board.latency_ms.median, rel=5e-4)


def test_charts_show_the_numbers(profile: ProfileReport, browser: Browser, tmp_path: Path) -> None:
    """Breaks if a chart is missing, a bar has another length than its number, or a reader cannot hear what it shows."""
    show(browser, profile_page(profile), tmp_path)
    (board,) = profile.boards
    charts = browser.evaluate(
        '[...document.querySelectorAll("svg")].map(svg => ({title: svg.querySelector("title").textContent, '
        'role: svg.getAttribute("role"), width: svg.getBoundingClientRect().width, labelled: '
        'svg.getAttribute("aria-labelledby").split(" ").every(id => document.getElementById(id).textContent.length > 10), '
        "text: svg.textContent}))"
    )
    assert [chart["title"] for chart in charts] == [
        "Binary, glue and float",
        "Roofline of the binary kernels",
        "Time by layer, in the order of execution",
    ]
    assert all(chart["role"] == "img" and chart["labelled"] and chart["width"] > 500 for chart in charts)
    for kind, share in board.share_by_kind.items():
        assert share < 0.06 or f"{100 * share:.0f}%" in charts[0]["text"], kind
    # Bars: a mark's title says layer and time, and its width is the time on one scale for all.
    bars = browser.evaluate(
        '[...document.querySelectorAll("svg[aria-labelledby^=layers] g > title")].map(title => '
        "[title.textContent, title.parentElement.querySelector('path').getBoundingClientRect().width])"
    )
    scales = []
    for title, width in bars:
        us = float(re.search(r": ([0-9.e+-]+) us ", title)[1])  # type: ignore[index]
        if width > 30:
            scales.append(width / us)
    assert len(scales) > 3 and max(scales) / min(scales) < 1.1
    identifiers = browser.evaluate('[...document.querySelectorAll("[id]")].map(element => element.id)')
    assert len(identifiers) == len(set(identifiers))


def test_sorting_and_filtering(profile: ProfileReport, browser: Browser, tmp_path: Path) -> None:
    """Breaks if a click on a column does not sort it as numbers, or the filter hides the wrong kernels."""
    show(browser, profile_page(profile), tmp_path)

    def click(column: int) -> list[Any]:
        browser.evaluate(f'document.querySelectorAll("section.kernels thead button")[{column}].click()')
        return [row[column] for row in browser.evaluate(ROWS)]

    times = [kernel.us.median for kernel in profile.boards[0].kernels]
    assert click(3) == sorted(times, reverse=True)
    assert browser.evaluate('document.querySelectorAll("th")[3].getAttribute("aria-sort")') == "descending"
    assert click(3) == sorted(times)
    assert click(0) == list(range(len(times)))[::-1]
    names = click(1)
    assert sorted(names) == sorted(kernel.layer for kernel in profile.boards[0].kernels) and names != names[::-1]
    browser.evaluate(
        '(s => { s.value = "binary"; s.dispatchEvent(new Event("input")); })(document.querySelector("select"))'
    )
    assert {row[2] for row in browser.evaluate(ROWS)} == {"binary"}
    browser.evaluate(
        '(s => { s.value = "NETWORK.0"; s.dispatchEvent(new Event("input")); })(document.querySelector("input"))'
    )
    expected = [
        kernel
        for kernel in profile.boards[0].kernels
        if kernel.kind == "binary" and "network.0" in kernel.layer.lower()
    ]
    assert len(browser.evaluate(ROWS)) == len(expected) > 0
    assert (
        browser.evaluate('document.querySelector("output").textContent') == f"{len(expected)} of {len(times)} kernels"
    )


def test_nasty_names(nasty: ProfileReport, browser: Browser, tmp_path: Path) -> None:
    """Breaks if a layer's name is executed, ends an element, or is shown as something else than it is."""
    show(browser, profile_page(nasty), tmp_path)
    assert browser.evaluate("document.title").startswith("</script ><img src=x")
    rows = browser.evaluate(ROWS)
    for row, kernel in zip(rows, nasty.boards[0].kernels, strict=True):
        assert row[1] == kernel.layer and row[-1] == kernel.name
    assert browser.evaluate("document.scripts.length") == 2 and browser.evaluate("document.images.length") == 0
    carried = json.loads(browser.evaluate('document.getElementById("data").textContent'))
    assert carried["profile"] == json.loads(json.dumps(nasty.to_dict()))


def test_comparison(profile: ProfileReport, browser: Browser, tmp_path: Path) -> None:
    """Breaks if the page says another ratio or verdict than ``compare``."""
    (board,) = profile.boards
    slow = board.kernels[4]
    us = replace(slow.us, median=2 * slow.us.median, interval=(1.9 * slow.us.interval[0], 2.1 * slow.us.interval[1]))  # type: ignore[index]
    kernels = (*board.kernels[:4], replace(slow, us=us), *board.kernels[5:])
    after = replace(profile, boards=(replace(board, kernels=kernels),))
    comparison = compare(profile, after)
    assert comparison.regressed
    show(browser, comparison_page(profile, after, comparison), tmp_path)
    assert "B is slower than A" in browser.evaluate("document.body.innerText")
    rows = browser.evaluate(ROWS)
    for row, change in zip(rows, comparison.boards[0].kernels, strict=True):
        assert row[3:6] == [change.us.before.median, change.us.after.median, change.us.ratio or 0]
    changed = browser.evaluate('[...document.querySelectorAll("table.changed tbody tr")].map(row => row.innerText)')
    assert len(changed) == 1 and "2.00 slower" in changed[0] and changed[0].startswith(slow.layer)
    carried = json.loads(browser.evaluate('document.getElementById("data").textContent'))
    assert set(carried) == {"before", "after", "comparison"} and carried["comparison"]["regressed"] is True


def test_fleet(profile: ProfileReport, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a board of a fleet has no row or no table of its own, or a large fleet gets more charts than it should."""
    monkeypatch.setattr(module, "MOST_CHARTED", 1)
    boards = tuple(replace(profile.boards[0], board=f"pi-{index}") for index in range(3))
    fleet = replace(profile, boards=boards, lost=(LostBoard("pi-3", "no answer."),))
    show(browser, profile_page(fleet), tmp_path)
    assert "pi-3: no answer." in browser.evaluate("document.body.innerText")
    assert browser.evaluate('document.querySelectorAll("table.boards tbody tr").length') == 3
    assert browser.evaluate('document.querySelectorAll("section.kernels").length') == 3
    assert browser.evaluate('document.querySelectorAll("svg").length') == 3
    assert "first 1 boards" in browser.evaluate("document.body.innerText")


def test_emulated_times_have_a_banner(profile: ProfileReport, browser: Browser, tmp_path: Path) -> None:
    """Breaks if somebody can take an emulator's times on the page, or in one of its charts, for a device's."""
    board = replace(profile.boards[0], emulated=True)
    show(browser, profile_page(replace(profile, boards=(board,))), tmp_path)
    text = browser.evaluate("document.body.innerText")
    assert (
        "no latencies of any device" in text
        and "emulated time, not a latency" in text
        and "latency, median" not in text
    )
    titles = browser.evaluate(
        '[...document.querySelectorAll("svg")].map(svg => svg.querySelector("title").textContent)'
    )
    assert titles and all("EMULATED" in title for title in titles)


@pytest.mark.parametrize(("scheme", "media"), [("light", "screen"), ("dark", "screen"), ("dark", "print")])
def test_contrast(scheme: str, media: str, profile: ProfileReport, browser: Browser, tmp_path: Path) -> None:
    """Breaks if text cannot be read in light, in dark or on paper: WCAG 2.2 asks for a contrast of 4.5."""
    browser.emulate(prefers_color_scheme=scheme, media=media)
    show(browser, profile_page(profile), tmp_path)
    names = [
        "ink",
        "quiet",
        "paper",
        "band",
        "binary",
        "pack",
        "float",
        "on",
        "bad",
        "good",
        "caution",
        "caution-paper",
    ]
    values = browser.evaluate(
        "(style => "
        + json.dumps(names)
        + '.map(name => style.getPropertyValue("--" + name).trim()))(getComputedStyle(document.documentElement))'
    )
    colour = dict(zip(names, values, strict=True))
    pairs = [("ink", "paper"), ("quiet", "paper"), ("quiet", "band"), ("bad", "paper"), ("good", "paper")]
    pairs += [("ink", "caution-paper"), ("on", "binary"), ("on", "pack"), ("on", "float")]
    for text, ground in pairs:
        assert contrast(colour[text], colour[ground]) >= 4.5, (text, ground)
    if media == "print":
        assert browser.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    # Charts take part.
    assert "var(--ink)" in browser.evaluate("document.querySelector('svg').outerHTML")
    browser.emulate(media="")


def contrast(first: str, second: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio of two colours #rrggbb."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_no_outside_reference(nasty: ProfileReport) -> None:
    """Breaks if the file refers to another one, which a browser without a network would not even try to load."""

    class References(HTMLParser):
        """Everything in an attribute, style or script that a browser could take for an address."""

        found: ClassVar[list[str]] = []
        policy = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("link", "iframe", "object", "embed", "img", "base", "image", "audio", "video", "form")
            for name, value in attrs:
                if name in ("src", "srcset", "href", "xlink:href", "action", "formaction", "poster", "background"):
                    self.found.append(value or "")
                elif name in ("style", "clip-path", "fill", "stroke", "filter", "mask"):
                    self.found.extend(re.findall(r"url\(([^)]*)\)", value or ""))
            if dict(attrs).get("http-equiv") == "Content-Security-Policy":
                self.policy = dict(attrs)["content"] or ""

        def handle_data(self, data: str) -> None:
            if self.lasttag == "style":
                assert "@import" not in data and "url(" not in data

    parser = References()
    parser.feed(profile_page(nasty).decode())
    assert parser.policy.startswith("default-src 'none'; ") and "http" not in parser.policy
    assert parser.found and all(reference.startswith("#") for reference in parser.found)
