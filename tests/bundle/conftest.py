"""The toy bundles of the runtime's tests."""

from __future__ import annotations

from tests.runtime.toy_bundles import bundle_folder, copied_bundle, host_bundle  # noqa: F401
