"""Profiles and comparisons for people and other programs: an HTML page, a picture, a trace, a table."""

from __future__ import annotations
