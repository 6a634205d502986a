"""Every document: the pages, sections and source files that it sends its reader to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.source_tree import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# What the pages of docs/contributing add for their own length, and a file of QEMU's.
ELSEWHERE = re.compile(r"/(test_)?my_|^tests/tcg/")


def anchors(page: Path) -> set[str]:
    """What headings are called in addresses."""
    titles = [
        line.lstrip("# ").lower() for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    ]
    return {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    """Breaks if a document links to a file, or a section, that was moved or renamed."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link, section in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", text):
        if "://" not in link:
            target = document.parent / link if link else document
            assert target.exists(), f"no {link}"
            assert not section or section in anchors(target), f"no section {section} in {target.name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_source_files_that_are_named_exist(document: Path) -> None:
    """Breaks if a document names a source file that was moved."""
    for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|c|h|cuh|sh|toml))`", document.read_text(encoding="utf-8")):
        if not ELSEWHERE.search(name):
            assert (ROOT / name).exists() or (ROOT / "bnn_deploy" / name).exists(), f"no {name}"
