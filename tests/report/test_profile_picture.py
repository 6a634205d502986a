"""The charts of a profile as a picture."""

from __future__ import annotations

import struct

import pytest

from bnn_deploy.profiling.model import ProfileReport
from bnn_deploy.report.profile_picture import profile_picture


def test_profile_picture(nasty: ProfileReport, recwarn: pytest.WarningsRecorder) -> None:
    """Breaks if the picture is no PNG of a size that can be looked at, or a name is taken for a formula."""
    content = profile_picture(nasty)
    assert content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", content[16:24])
    assert 1000 <= width <= 2000 and 1000 <= height <= 4000
    assert not recwarn.list
