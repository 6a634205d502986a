"""The HTML page of a validation, looked at in a real browser that has no network."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bnn_deploy.report.charts.margins import LABELS
from bnn_deploy.report.validation_page import validation_page
from bnn_deploy.validation.report import HISTOGRAM_EDGES, ValidationReport
from tests.report.browser import Browser, show
from tests.report.nasty_names import NASTY
from tests.report.validation_samples import failing, golden, model, model_only, passing, renamed

pytestmark = pytest.mark.browser

# As deep as BiMLP-M, the deepest of the zoo: about as many values.
DEEP = 668
NARROW, WIDE = 360, 1280

ROWS = """[...document.querySelectorAll("section.compared")].map(section => [...section.querySelectorAll("tbody tr")].map(
    row => [...row.cells].map(cell => cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value))))"""
CHARTS = """[...document.querySelectorAll("svg")].map(svg => ({
    title: svg.querySelector("title").textContent, role: svg.getAttribute("role"), text: svg.textContent,
    said: document.getElementById(svg.getAttribute("aria-labelledby").split(" ")[1]).textContent}))"""


def open_page(report: ValidationReport, browser: Browser, folder: Path) -> None:
    show(browser, validation_page(report), folder)


def test_numbers_are_those_of_the_report(browser: Browser, tmp_path: Path) -> None:
    """Breaks if the page shows other numbers than the report has, in its tables or in the data that it carries."""
    report = failing()
    open_page(report, browser, tmp_path)
    assert json.loads(browser.evaluate('document.getElementById("data").textContent')) == report.to_dict()
    for rows, level in zip(browser.evaluate(ROWS), report.levels, strict=True):
        for number, (shown, row) in enumerate(zip(rows, level.rows, strict=True), start=1):
            assert shown == [
                number,
                row.layer + row.tensor,
                row.kind,
                "right" if row.passed else "wrong",
                row.compared,
                row.differing,
                row.within_margin,
                -1 if row.near_threshold is None else row.near_threshold,
                -1 if row.max_error is None else min(row.max_error, 1e308),
                -1 if row.margin is None else row.margin,
            ]


def test_failure_is_said_first(browser: Browser, tmp_path: Path) -> None:
    """Breaks if one must look for the first wrong layer, its place, its values on both sides, or what to do."""
    open_page(failing(), browser, tmp_path)
    said = browser.evaluate('document.querySelector("main").firstElementChild.innerText')
    for part in (
        "Failed: bimlp_m.rpi4 (rpi4) on ssh://pi@board does not compute what bimlp_m.onnx in onnxruntime computes",
        "the first wrong layer is network.0.3.token_mixing/Sign",
        "image 3 at channel 12, row 4, column 5: onnxruntime has +1, the bundle -1",
        "What to do: Its kernel does what the compiler meant",
    ):
        assert part in said
    details = browser.evaluate('document.querySelector("dl.details").innerText')
    assert "137 of 50,176 bits" in details and "0.37" in details
    assert browser.evaluate('document.querySelector("dd.expected").textContent') == "+1"
    assert browser.evaluate('document.querySelector("dd.found").textContent') == "-1"
    cards = browser.evaluate(
        '[...document.querySelectorAll("dl.levels dd")].map(card => card.innerText.split("\\n")[0])'
    )
    assert cards == ["✓ passed", "✗ failed", "✗ failed"]


def test_pass(browser: Browser, tmp_path: Path) -> None:
    """Breaks if a passed validation looks failed anywhere, or a level that was not asked for looks passed."""
    open_page(passing(), browser, tmp_path)
    text = browser.evaluate("document.body.innerText")
    assert "Passed: bimlp_m.rpi4" in text and "failed" not in text and "What to do" not in text
    assert browser.evaluate('document.querySelectorAll(".verdict.passed").length') == 1
    open_page(golden(), browser, tmp_path)
    cards = browser.evaluate('[...document.querySelectorAll("dl.levels dd")].map(card => card.innerText)')
    assert cards[0].startswith("not run") and cards[1].startswith("✓") and cards[2].startswith("✓")
    text = browser.evaluate("document.body.innerText")
    assert "pi-2\t40\t1.0\tno answer in 60 s" in text and "not from real data" in text and "Of 1M values" in text
    open_page(model_only(), browser, tmp_path)
    assert "only 970 of 1,000 images" in browser.evaluate("document.body.innerText")
    assert browser.evaluate('document.querySelectorAll("svg").length') == 1


def test_charts_show_the_numbers(browser: Browser, tmp_path: Path) -> None:
    """Breaks if a chart is missing, cannot be heard, or draws something else than its numbers."""
    report = failing()
    open_page(report, browser, tmp_path)
    charts = browser.evaluate(CHARTS)
    assert [chart["title"] for chart in charts] == [
        "Differing values along the network",
        "Errors of floats along the network",
        "Distance of activations from their threshold",
        "Agreement and accuracy",
    ]
    assert all(chart["role"] == "img" and len(chart["said"]) > 40 for chart in charts)
    assert all(label in charts[2]["text"] for label in LABELS) and len(LABELS) == len(HISTOGRAM_EDGES) + 1
    histograms = [row.histogram for row in report.levels[1].rows if row.histogram is not None]
    for label, count in zip(LABELS, map(sum, zip(*histograms, strict=True)), strict=True):
        assert f"{label}: {count:,}" in charts[2]["said"]
    marks = browser.evaluate('[...document.querySelectorAll("svg g > title")].map(title => title.textContent)')
    layer = "network.0.3.token_mixing/Sign"
    assert f"4 {layer}: 137 of 50,176 wrong" in marks
    assert "2 network.0.1.token_mixing/Sign: 2 of 100,352 explained by rounding" in marks
    assert "5 network.0.4.token_mixing/Conv: largest error inf, margin 2e-05" in marks
    # On a logarithmic axis a line is as long as the logarithm of its number.
    heights = dict(
        browser.evaluate(
            '[...document.querySelectorAll("svg[aria-labelledby^=level2-differences] g > title")].map(title => '
            "[title.textContent, title.parentElement.querySelector('path').getBoundingClientRect().height])"
        )
    )
    (two,) = (height for mark, height in heights.items() if mark.startswith("2 "))
    (many,) = (height for mark, height in heights.items() if mark.startswith("4 "))
    # From 0.5 to 2 are 2 doublings, to 137 there are 8.1.
    assert many / two == pytest.approx(8.098 / 2, rel=0.02)
    identifiers = browser.evaluate('[...document.querySelectorAll("[id]")].map(element => element.id)')
    assert len(identifiers) == len(set(identifiers))


def test_only_failing(browser: Browser, tmp_path: Path) -> None:
    """Breaks if the filter of the wrong rows hides one of them or shows another, or the keyboard cannot reach it."""
    wrong = (100, 400, 401)
    open_page(failing(DEEP, wrong), browser, tmp_path)
    section = 'document.querySelectorAll("section.compared")[1]'
    shown = (
        f'[...{section}.querySelectorAll("tbody tr")].filter(row => !row.hidden).map(row => row.cells[0].textContent)'
    )
    # Long tables are folded away; what is in them is there.
    assert browser.evaluate('[...document.querySelectorAll("details")].map(one => one.open)') == [False, False]
    browser.evaluate('document.querySelectorAll("summary")[1].click()')
    assert len(browser.evaluate(shown)) == DEEP
    browser.evaluate(
        f'(s => {{ s.value = "wrong"; s.dispatchEvent(new Event("input")); }})({section}.querySelector("select"))'
    )
    assert browser.evaluate(shown) == [str(index + 1) for index in wrong]
    assert browser.evaluate(f'{section}.querySelector("output").textContent') == f"3 of {DEEP} values"
    browser.evaluate(f'{section}.querySelectorAll("thead button")[0].click()')
    assert browser.evaluate(shown) == [str(index + 1) for index in reversed(wrong)]
    first = browser.evaluate('document.querySelector("table.wrong tbody").innerText').split("\t")
    assert first[0] == "101" and first[2] == "137"
    reachable = "every(one => { one.focus(); return document.activeElement === one; })"
    assert browser.evaluate(f'[...{section}.querySelectorAll("button, input, select")].{reachable}')
    scrolled = 'every(one => one.closest("[tabindex][aria-label]"))'
    assert browser.evaluate(f'[...document.querySelectorAll(".chart, .compared .scroll, table.wrong")].{scrolled}')


@pytest.mark.parametrize(
    "report", [failing(), failing(DEEP, (3, 4, *range(400, 420))), passing(1)], ids=["5", "deep", "1"]
)
def test_every_width(report: ValidationReport, browser: Browser, tmp_path: Path) -> None:
    """Breaks if a telephone must scroll the page sideways, a chart is cut off, or a deep network makes a page too large."""
    content = validation_page(report)
    assert len(content) < 2_500_000
    try:
        for width in (NARROW, WIDE):
            browser.resize(width)
            show(browser, content, tmp_path)
            assert browser.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            cut = browser.evaluate(
                '[...document.querySelectorAll("svg")].flatMap(svg => { const all = svg.getBoundingClientRect(); return '
                '[...svg.querySelectorAll("text")].filter(text => { const one = text.getBoundingClientRect(); return '
                "one.left < all.left - 2 || one.right > all.right + 2 || one.top < all.top - 2 || "
                "one.bottom > all.bottom + 2; }).map(text => text.textContent); })"
            )
            assert cut == []
    finally:
        browser.resize(0, 0)
    # On paper nothing may scroll.
    browser.emulate(media="print")
    assert browser.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    browser.emulate(media="")


def test_nasty_names(browser: Browser, tmp_path: Path) -> None:
    """Breaks if a name from a file is executed, ends an element, or is shown as something else than it is."""
    report = renamed(failing(16, (0, 1, 2, 15)), NASTY)
    open_page(report, browser, tmp_path)
    # Files go by the last part of their path.
    assert browser.evaluate("document.title").startswith("script ><img src=x")
    for rows, level in zip(browser.evaluate(ROWS), report.levels, strict=True):
        for shown, row in zip(rows, level.rows, strict=True):
            assert shown[1] == row.layer + ("" if row.tensor == row.layer else row.tensor)
    assert browser.evaluate("document.scripts.length") == 2 and browser.evaluate("document.images.length") == 0
    assert json.loads(browser.evaluate('document.getElementById("data").textContent')) == report.to_dict()
    text = validation_page(report).decode()
    assert all(target.startswith("#") for target in re.findall(r'(?:href|src)="([^"]*)"', text.split("<svg", 1)[1]))


def test_edges(browser: Browser, tmp_path: Path) -> None:
    """Breaks if a page of unusual numbers has no chart, or none that can be drawn."""
    whole = passing()
    rows = tuple(replace(row, histogram=None if row.histogram is None else (0,) * 10) for row in whole.levels[1].rows)
    exact = tuple(replace(row, max_error=0.0 if row.kind == "float" else None, margin=0.0, differing=0) for row in rows)
    none = replace(model(0, 1, labels=False), max_abs_error=None, mean_abs_error=None, non_finite_samples=1)
    nothing = replace(whole.levels[0], rows=())
    levels = (nothing, replace(whole.levels[1], rows=exact))
    open_page(replace(whole, levels=levels, model=none, margin=None, passed=False), browser, tmp_path)
    text = browser.evaluate("document.body.innerText")
    assert "No value differs in any layer. All floats are equal bit for bit." in text
    assert [chart["title"] for chart in browser.evaluate(CHARTS)] == ["Agreement and accuracy"]
    infinite = tuple(replace(row, max_error=float("nan"), margin=None) for row in failing().levels[1].rows)
    open_page(replace(failing(), levels=(replace(whole.levels[1], rows=infinite),)), browser, tmp_path)
    assert "NaN or infinite" in browser.evaluate(CHARTS)[1]["text"]
