"""The toy network as a bundle for a GPU, and the fake driver that runs it; built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnn_deploy.bundle.bundle import Bundle
from tests.cuda.driver import build_driver, build_kernels
from tests.cuda.toy_gpu_network import KERNELS, toy_gpu_bundle


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="session")
def driver(folder: Path) -> Path:
    return build_driver(folder)


@pytest.fixture(scope="session")
def kernels(folder: Path) -> Path:
    return build_kernels(folder, [KERNELS])


@pytest.fixture(scope="session")
def bundle(folder: Path) -> Bundle:
    return toy_gpu_bundle(folder)
