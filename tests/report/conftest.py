"""Profiles with names that try to break out of whatever they are written into."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from bnn_deploy.profiling import LostBoard, ProfileReport
from bnn_deploy.profiling.reading import profile_from_json

Invoke = Callable[..., Result]

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


@pytest.fixture(scope="session")
def profile(tiny_bundle: Path, invoke: Invoke) -> ProfileReport:
    """A measured profile of the tiny network."""
    result = invoke("profile", tiny_bundle, "--repeat", 20, "--format", "json")
    assert result.exit_code == 0, result.stderr
    return profile_from_json(json.loads(result.stdout), "stdout")


@pytest.fixture(scope="session")
def nasty(profile: ProfileReport) -> ProfileReport:
    """The same with other names of layers, kernels, board, device and model."""
    return rename(profile, NASTY)


def rename(profile: ProfileReport, names: Sequence[str]) -> ProfileReport:
    """``profile`` with ``names`` for its first layers and kernels, and for everything else that has a name."""
    (board,) = profile.boards
    kernels = list(board.kernels)
    for index, name in enumerate(names):
        kernels[index] = replace(kernels[index], layer=name, name=name)
    board = replace(board, board=names[0], kernel_set=names[1], kernels=tuple(kernels))
    lost = (LostBoard(names[0], names[1]),)
    return replace(profile, boards=(board,), lost=lost, device=names[0], target=names[5], model=names[1])
