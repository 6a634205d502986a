"""Charts, one file each: a function that takes numbers and gives a ``Chart``, which pages and pictures draw."""

from __future__ import annotations
