"""Lets the tests of this folder import their helpers as ``tests.gpu.…`` whatever the working directory; models, made once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.gpu.models import Ready


@pytest.fixture(scope="session")
def prepare(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ready]:
    """A model by its name, exported and compiled for this machine's GPU when first asked for."""
    # PyTorch, which the tests of kernels do without.
    from tests.gpu.models import ready_model

    return functools.cache(lambda name: ready_model(name, tmp_path_factory.mktemp(name)))
