"""docs/operators.md against the code."""

from __future__ import annotations

import re
from pathlib import Path

from bnn_deploy.onnx_files.standard_operators import DATA_MOVEMENT
from bnn_deploy.ops.registry import OPERATORS, OPSET

PAGE = (Path(__file__).parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")


def test_the_example_runs() -> None:
    """Breaks when the page's packing example no longer says what the code does."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 1
    exec(compile(blocks[0], "docs/operators.md", "exec"), {})


def test_the_page_names_every_operator_and_attribute() -> None:
    """Breaks when an operator, an attribute, the version or a data movement operator is missing on the page."""
    assert f"version {OPSET}" in PAGE
    rows = {line.split("|")[1].strip(" `"): line for line in PAGE.splitlines() if line.startswith("| `")}
    assert rows.keys() == OPERATORS.keys()
    for name, operator in OPERATORS.items():
        row = rows["BinaryConv"] if "as `BinaryConv`" in rows[name] else rows[name]
        for word in (*operator.required, *operator.defaults):
            assert f"`{word}`" in row, (name, word)
        for word in operator.inputs:
            assert f"`{word}`" in rows[name], (name, word)
    moved = re.search(r"only move data\s+\((.*?)\)", PAGE, re.DOTALL)
    assert moved is not None and set(re.findall(r"\w+", moved.group(1))) == DATA_MOVEMENT
