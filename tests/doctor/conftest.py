"""Small bundles for boards and for this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "runtime"))

from toy_network import toy_bundle

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.targets.registry import get_target


@pytest.fixture(scope="session")
def board_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle for the Raspberry Pi 4."""
    return toy_bundle(tmp_path_factory.mktemp("doctor"), get_target("rpi4"))


@pytest.fixture(scope="session")
def pc_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle for this machine."""
    return toy_bundle(tmp_path_factory.mktemp("doctor"), get_target("host"))
