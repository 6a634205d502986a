"""Small bundles for boards and for this machine."""

from __future__ import annotations

import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.targets.registry import get_target
from tests.runtime.toy_network import toy_bundle


@pytest.fixture(scope="session")
def board_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle for the Raspberry Pi 4."""
    return toy_bundle(tmp_path_factory.mktemp("doctor"), get_target("rpi4"))


@pytest.fixture(scope="session")
def pc_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle for this machine."""
    return toy_bundle(tmp_path_factory.mktemp("doctor"), get_target("host"))
