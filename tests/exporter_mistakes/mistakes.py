"""Deliberate mistakes: each replaces one function or class of the real code by a wrong one.

They are made while a model is written to ONNX; those of the compiler are in ``tests.seeded_faults``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from bnn_deploy.export import layers as export_layers

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]


# -- mistakes of the exporter


def bits_in_the_other_order(patch: Patch) -> None:
    """The most significant bit of a byte is the first weight."""
    patch.setattr(export_layers, "pack_bits", lambda signs: np.packbits(signs > 0, axis=-1, bitorder="big"))


def weights_channels_first(patch: Patch) -> None:
    """A row of weights runs over (c, kh, kw) instead of (kh, kw, c)."""

    def packed(rows: torch.Tensor) -> torch.Tensor:
        taps = {360: 9, 72: 3}.get(rows.shape[1], 1)
        return original(rows.reshape(len(rows), taps, -1).transpose(1, 2).flatten(1))

    original = export_layers._packed
    patch.setattr(export_layers, "_packed", packed)


def weights_negated(patch: Patch) -> None:
    """Bit 1 means -1."""
    original = export_layers._packed
    patch.setattr(export_layers, "_packed", lambda rows: original(-rows))


def sign_of_zero_is_plus(patch: Patch) -> None:
    """Sign(0) = +1 in the file."""

    def forward(self: export_layers.ExportedSign, x: torch.Tensor) -> torch.Tensor:
        return self.emit("Sign", [x, torch.zeros(())], list(x.shape), {"zero": 1})

    patch.setattr(export_layers.ExportedSign, "forward", forward)


def ternary_is_a_sign(patch: Patch) -> None:
    """Values near 0 become -1 or +1."""
    patch.setattr(export_layers.ExportedTernary, "forward", export_layers.ExportedSign.forward)


def padding_on_one_side(patch: Patch) -> None:
    """All padding before the image, none after it."""
    original = export_layers.ExportedConv.forward

    def forward(self: export_layers.ExportedConv, x: torch.Tensor) -> torch.Tensor:
        top, left, bottom, right = self.attributes["pads"]
        self.attributes["pads"] = [top + bottom, left + right, 0, 0]
        return original(self, x)

    patch.setattr(export_layers.ExportedConv, "forward", forward)


def scale_forgotten(patch: Patch) -> None:
    """The Mul by mean(abs(weight)) is not written."""
    original = export_layers.ExportedConv.forward

    def forward(self: export_layers.ExportedConv, x: torch.Tensor) -> torch.Tensor:
        if self.scaling == "channel":
            self.scale = None
        return original(self, x)

    patch.setattr(export_layers.ExportedConv, "forward", forward)


EXPORT: tuple[Mutation, ...] = (
    bits_in_the_other_order,
    weights_channels_first,
    weights_negated,
    sign_of_zero_is_plus,
    ternary_is_a_sign,
    padding_on_one_side,
    scale_forgotten,
)
