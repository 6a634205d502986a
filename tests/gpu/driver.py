"""The benchmarks' wrapper of NVIDIA's driver, which the tests use as well."""

from __future__ import annotations

from benchmarks.cuda_driver import Driver, Launcher

__all__ = ["Driver", "Launcher"]
