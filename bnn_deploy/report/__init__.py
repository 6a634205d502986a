"""What was found, for people and other programs: each file renders one result in one form, ``profile_text``, ``profile_page``, …"""

from __future__ import annotations
