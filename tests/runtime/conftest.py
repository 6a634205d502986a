"""Toy bundles for the tests of runtime and bundle, built once; tests that damage one take a copy."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

# pytest's importlib mode puts no test folder on the path; devices/ shares this module.
sys.path.append(str(Path(__file__).parent))

from toy_network import ARM, HOST, toy_bundle

from bnn_deploy.bundle import Bundle


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="session")
def host_bundle(bundle_folder: Path) -> Bundle:
    return toy_bundle(bundle_folder, HOST)


@pytest.fixture(scope="session")
def other_bundle(bundle_folder: Path) -> Bundle:
    """The same network with other weights."""
    return toy_bundle(bundle_folder, HOST, seed=7)


@pytest.fixture(scope="session")
def arm_bundle(bundle_folder: Path) -> Bundle:
    return toy_bundle(bundle_folder, ARM)


@pytest.fixture
def copied_bundle(host_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(host_bundle.path, tmp_path / "copy"))
