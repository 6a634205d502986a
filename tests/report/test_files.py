"""Several files, written whole or not at all."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bnn_deploy.errors import InputError
from bnn_deploy.report.files import check_outputs, write_files


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """Breaks if half a file, or one output of two, stays behind when the disk is full."""
    code = f"""
import resource, signal
from pathlib import Path
from bnn_deploy.report.files import write_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
folder = Path({str(tmp_path)!r})
write_files({{folder / "small.csv": b"x" * 1000, folder / "large.html": b"x" * 100_000}})
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    (tmp_path / "small.csv").write_text("old")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "InputError" in done.stderr and "large.html: cannot be written (File too large)" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["small.csv"]
    assert (tmp_path / "small.csv").read_text() == "old"


def test_same_file_by_two_names(tmp_path: Path) -> None:
    """Breaks if two outputs overwrite each other because one is named through a link."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="asked for twice"):
        check_outputs([tmp_path / "a", tmp_path / "link" / "a"])
    write_files({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert (tmp_path / "a").read_bytes() == b"1" and (tmp_path / "b").read_bytes() == b"2"
