"""Profiles, comparisons and validations for people and other programs: pages, pictures, traces, tables, comments."""

from __future__ import annotations
