"""The toy bundles of the runtime's tests, for devices."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "runtime"))

from toy_network import ARM, HOST, toy_bundle

from bnn_deploy.bundle import Bundle


@pytest.fixture(scope="session")
def device_host_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("host"), HOST)


@pytest.fixture(scope="session")
def device_arm_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("arm"), ARM)
