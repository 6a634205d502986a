"""Bundles and profiles of chosen times as fixtures, which tests of hypothesis' can share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.profiling.model import ProfileReport
from tests.profiling import profile_samples
from tests.profiling.profile_samples import STEPS, bundle_of

MakeReport = Callable[..., ProfileReport]


@pytest.fixture(scope="session")
def three_steps() -> Bundle:
    """A bundle of ``STEPS`` that nothing can run."""
    return bundle_of(STEPS)


@pytest.fixture(scope="session")
def make_report() -> MakeReport:
    """``make_report(step_seconds, …)`` of ``profile_samples``."""
    return profile_samples.make_report
