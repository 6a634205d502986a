"""BiMLP's block computed a second time, in numpy and float64, from the state dict and the published equations only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class BlockEquations:
    """``variant`` "paper" or "released"; ``state`` maps parameter names below the block to float64 arrays."""

    def __init__(self, state: Mapping[str, Array], variant: str) -> None:
        self.state = state
        self.released = variant == "released"

    def quantise(self, x: Array) -> Array:
        return np.rint(np.clip(x, -1, 1)) if self.released else np.where(x > 0, 1.0, -1.0)

    def average(self, x: Array, n: int) -> Array:
        batch, channels, height, width = x.shape
        if self.released:
            return x.reshape(batch, channels // n, n, height, width).mean(axis=2)
        return x.reshape(batch, n, channels // n, height, width).mean(axis=1)

    def bias(self, name: str, x: Array) -> Array:
        return x + self.state[f"{name}.bias"]

    def batch_norm(self, name: str, x: Array) -> Array:
        gamma, beta, mean, variance = (
            self.state[f"{name}.{part}"].reshape(1, -1, 1, 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta

    def block_norm(self, name: str, x: Array) -> Array:
        if not self.released:
            return self.batch_norm(name, x)
        gamma, beta = (self.state[f"{name}.{part}"].reshape(1, -1, 1, 1) for part in ("weight", "bias"))
        axes = (1, 2, 3)
        return gamma * (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5) + beta

    def rprelu(self, name: str, x: Array) -> Array:
        x = self.bias(f"{name}.move1", x)
        x = np.maximum(x, 0) + self.state[f"{name}.act.w"] * np.minimum(x, 0)
        return self.bias(f"{name}.move2", x)

    def pointwise(self, name: str, x: Array) -> Array:
        weight = self.state[f"{name}.weight"][:, :, 0, 0]
        binary = np.where(weight > 0, 1, -1) * np.abs(weight).mean(axis=1, keepdims=True)
        return np.einsum("oc,nchw->nohw", binary, self.quantise(x))

    def spatial(self, name: str, x: Array, axis: int) -> Array:
        """Seven taps along ``axis`` (2 or 3); output channel o reads inputs o * m ... o * m + m - 1."""
        weight = self.state[f"{name}.weight"].reshape(*self.state[f"{name}.weight"].shape[:2], 7)
        scale = np.abs(weight).mean(axis=1 if self.released else (1, 2), keepdims=True)
        binary = np.where(weight > 0, 1, -1) * scale
        outputs, members = weight.shape[:2]
        bits = self.quantise(x)
        total = np.zeros((x.shape[0], outputs, *x.shape[2:]))
        length = x.shape[axis]
        for position in range(length):
            for tap in range(7):
                source = position + tap - 3
                if not 0 <= source < length:
                    continue
                column = np.take(bits, source, axis=axis).reshape(x.shape[0], outputs, members, -1)
                target = [slice(None)] * 4
                target[axis] = position
                total[tuple(target)] += np.einsum("om,nomp->nop", binary[:, :, tap], column)
        return total

    def mlp(self, name: str, x: Array) -> Array:
        hidden, inputs = self.state[f"{name}.fc1.weight"].shape[:2]
        outputs = self.state[f"{name}.fc2.weight"].shape[0]
        shortcut = np.concatenate([x] * 4, axis=1) if hidden > inputs else self.average(x, 4)
        shortcut = self.rprelu(f"{name}.act1", self.batch_norm(f"{name}.norm0", shortcut))
        y = self.batch_norm(f"{name}.norm1", self.pointwise(f"{name}.fc1", self.bias(f"{name}.move1", x)))
        x = self.rprelu(f"{name}.act2", y + shortcut)
        shortcut = np.concatenate([x] * 12, axis=1) if outputs > hidden else self.average(x, 4)
        y = self.batch_norm(f"{name}.norm2", self.pointwise(f"{name}.fc2", self.bias(f"{name}.move2", x)))
        return self.rprelu(f"{name}.act3", y + shortcut)

    def residual(self, x: Array, move: str, layer: str, norm: str, activation: str) -> Array:
        x = self.bias(move, x)
        return self.rprelu(activation, self.batch_norm(norm, self.pointwise(layer, x)) + x)

    def direction(self, x: Array, side: str, axis: int) -> Array:
        phase = self.residual(x, f"move_theta{side}", f"theta_{side}_conv", f"theta_{side}_bn", f"theta_{side}_act")
        amplitude = self.residual(x, f"move_fc{side}", f"fc_{side}", f"fc_{side}_bn", f"fc_{side}_act")
        waves = np.concatenate([amplitude * np.cos(phase), amplitude * np.sin(phase)], axis=1)
        waves = self.bias(f"move_tfc{side}", waves)
        mixed = self.batch_norm(f"norm_{side}", self.spatial(f"tfc_{side}", waves, axis))
        return self.rprelu(f"act_{side}", mixed + self.average(waves, 2))

    def patm(self, x: Array) -> Array:
        h, w = self.direction(x, "h", 3), self.direction(x, "w", 2)
        c = self.residual(x, "move_fcc", "fc_c", "norm_c", "act_c")
        logits = self.mlp("reweight", (h + w + c + x).mean(axis=(2, 3), keepdims=True))
        powers = np.exp(logits.reshape(x.shape[0], x.shape[1], 3))
        weights = (powers / powers.sum(axis=2, keepdims=True))[..., None, None]
        merged = h * weights[:, :, 0] + w * weights[:, :, 1] + c * weights[:, :, 2] + x
        return self.residual(merged, "move_proj", "proj", "norm_proj", "act_proj")

    def block(self, x: Array) -> Array:
        attention = BlockEquations(self.below("attn."), "released" if self.released else "paper")
        x = x + attention.patm(self.block_norm("norm1", x))
        middle = self.block_norm("norm2", x)
        branches = []
        for side, axis, activation in (("h", 3, "act1"), ("w", 2, "act2")):
            moved = self.bias(f"move_{side}", middle)
            mixed = self.batch_norm(f"norm_{side}", self.spatial(f"sfc_{side}", moved, axis))
            branches.append(self.rprelu(activation, mixed + moved))
        w0, w1 = self.state["weight"]
        return x + w0 * branches[0] + w1 * branches[1] + (1 - w0 - w1) * self.mlp("mlp", middle)

    def below(self, prefix: str) -> dict[str, Array]:
        return {name.removeprefix(prefix): value for name, value in self.state.items() if name.startswith(prefix)}
