"""The version of bnn-deploy, in a module of its own: what is written into files needs it, whatever else is imported."""

from __future__ import annotations

__version__ = "0.1.0"
