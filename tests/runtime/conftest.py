"""The toy bundles of ``toy_bundles``."""

from __future__ import annotations

from tests.runtime.toy_bundles import (  # noqa: F401
    arm_bundle,
    bundle_folder,
    checked_runner,
    copied_bundle,
    host_bundle,
    other_bundle,
    runner,
)
