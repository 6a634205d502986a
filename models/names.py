"""The names of the models, for those who must not import torch."""

from __future__ import annotations

# The keys of registry.MODELS; a test compares them.
MODEL_NAMES = (
    "bimlp_s",
    "bimlp_m",
    "bcdnet_a",
    "bcdnet_b",
    "bcdnet_a_r18",
    "bcdnet_b_r18",
    "reactnet_a",
    "reactnet_r18",
    "bimlp_tiny",
    "bcdnet_tiny",
)
