"""Names, numbers and tables as people read them."""

from __future__ import annotations

import pytest

from bnn_deploy.report.text import count_text, layers_text, percent_text, power_text, short, size_text, table


def test_table_and_sizes() -> None:
    """Breaks if columns do not line up or sizes are in the wrong unit."""
    assert table(("a", "b"), [("xx", "1"), ("y", "22")]) == "a    b\nxx   1\ny   22"
    assert [size_text(size) for size in (999, 1000, 12_345_678, 3_200_000_000)] == [
        "999 B",
        "1.0 kB",
        "12.3 MB",
        "3.20 GB",
    ]


def test_names_of_strangers() -> None:
    """Breaks if a layer's name moves the cursor of a terminal, or what is left of a long one says nothing."""
    assert short("a\x1b[31m\nb\u202e", 80) == "a [31m b "
    assert short("network.0.0.mlp.fc1", 11) == "netwo…p.fc1" and short("x" * 11, 11) == "x" * 11
    assert layers_text("stem") == "stem"
    assert layers_text("stem + middle + head") == "stem … head (3)"
    assert layers_text("l" * 41) == "l" * 19 + "…" + "l" * 20


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0"), (99_999, "99,999"), (100_000, "100k"), (999_999, "1M"), (10_234_567_890, "10.2G")]
)
def test_counts(count: int, said: str) -> None:
    """Breaks if a count has the wrong unit, or 1000 of one."""
    assert count_text(count) == said


@pytest.mark.parametrize(
    ("part", "said"), [(1.0, "100%"), (0.99996, "> 99.99%"), (0.0, "0%"), (0.00001, "< 0.01%"), (0.985, "98.5%")]
)
def test_parts(part: float, said: str) -> None:
    """Breaks if nearly all is called all, or nearly none, none."""
    assert percent_text(part) == said


def test_powers() -> None:
    """Breaks if 1e-06 is written in two ways."""
    assert [power_text(value) for value in (1e-6, 2.5e-6, 1e5)] == ["1e-6", "2.5e-6", "1e5"]
