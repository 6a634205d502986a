"""A validation as a comment on a pull request."""

from __future__ import annotations

import re

from bnn_deploy.report.validation_markdown import MOST_ROWS, validation_markdown
from bnn_deploy.validation.report import ValidationReport
from tests.report.validation_samples import failing, passing, renamed

# GitHub's bound is 65,536 characters; what else the comment's maker puts around it has room.
MOST_CHARACTERS = 60_000


def test_markdown_of_a_failure() -> None:
    """Breaks if the comment does not say at once what is wrong, where, and what to do."""
    text = validation_markdown(failing())
    first, second = text.split("\n\n")[:2]
    assert first == "### ❌ bnn-deploy validate: failed"
    assert "the first wrong layer is network.0.3.token_mixing/Sign" in second
    assert "image 3 at channel 12, row 4, column 5: onnxruntime has +1, the bundle -1" in second
    assert "\n**What to do:** " in text
    levels = [line.split(" | ")[0] for line in text.split("\n") if re.match(r"\| [✅❌] ", line)]
    assert levels == ["| ✅ 1: kernel integers", "| ❌ 2: teacher-forced layers", "| ❌ 3: whole model"]
    assert "8 of 351k activations lie so close to a threshold" in text
    assert validation_markdown(passing()).startswith("### ✅ bnn-deploy validate: passed\n")
    assert "<details>" not in validation_markdown(passing())


def test_markdown_lets_no_name_out(report: ValidationReport) -> None:
    """Breaks if a layer's name mentions somebody, makes a link, an element or another column in the comment."""
    text = validation_markdown(report)
    text.encode()
    # Everything that is ours; what remains are names and sentences.
    ours = re.sub(
        r"</?(code|details|summary)>|&#\d+;(<!-- -->)?|^> ⚠ |^### |\*\*What to do:\*\*|\|[-:|]+\|", "", text, flags=re.M
    )
    remains = re.sub(r"^\| | \| | \|$", "", ours, flags=re.M)
    assert not re.search(r"[<>`*\[\]|@#&~\\{}!$]|://|www\.", remains), remains
    for line in text.split("\n"):
        if line.startswith("| "):
            # Header, separator and rows have one number of columns each table; the model's row is one of the first.
            assert line.count("|") in (4, 7), line
    assert text.count("<details>") == text.count("</details>") <= 1


def test_markdown_fits_into_a_comment() -> None:
    """Breaks if GitHub refuses the comment on a deep network of which everything is wrong and has the longest names."""
    names = tuple(f"{index}{'|@' * 5000}" for index in range(668))
    report = renamed(failing(668, tuple(range(668))), names)
    text = validation_markdown(report)
    assert len(text) < MOST_CHARACTERS
    # The table of the levels has two rows above it.
    assert text.split("<details>")[1].count("\n| ") == MOST_ROWS + 1
