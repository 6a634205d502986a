"""Toy bundles for the tests of runtime and bundle, built once; tests that damage one take a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bnn_deploy.bundle.bundle import Bundle
from tests.conftest import made_once
from tests.runtime.toy_network import ARM, HOST, sanitized_runner, toy_bundle


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


@pytest.fixture(scope="session")
def checked_runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy network's runner, built by gcc with AddressSanitizer and UBSan."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed, which has the sanitizers")

    def make(path: Path) -> None:
        path.mkdir()
        sanitized_runner(path)

    return made_once(tmp_path_factory, "sanitized", make) / "runner"


@pytest.fixture(scope="session", params=["released", "sanitized"])
def runner(request: pytest.FixtureRequest, host_bundle: Bundle) -> Path:
    """Of the toy network."""
    return host_bundle.runner if request.param == "released" else request.getfixturevalue("checked_runner")
