"""What the front end for foreign ONNX graphs is asked for, and what it says of every layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# What sign(0) becomes where the graph says 0: "auto" keeps 0 (three values) where zeros are to be expected, and makes it
# -1 where only rounding could bring one about.
SignZero = Literal["auto", "-1", "0", "+1"]
# What a binary layer's weight that is exactly 0 becomes; "float" keeps the layer real-valued.
ZeroWeights = Literal["error", "-1", "float"]


@dataclass(frozen=True)
class ImportOptions:
    """The user's choices where a graph leaves one."""

    sign_zero: SignZero = "auto"
    zero_weights: ZeroWeights = "error"


@dataclass(frozen=True)
class ActivationReport:
    """One recognised binarisation.

    Attributes:
        name: of the node in the file (its PyTorch module path, where the file knows it).
        source: the value of the file's graph that is binarised; ``validate`` counts its zeros. Empty if it has no name there.
        kind: "sign" (two values), "sign with zero" (torch.sign: three values, 0 at the threshold only) or "ternary"
            (0 between -threshold and threshold).
        graph_zero: what the file's graph makes of a value exactly at the threshold: -1, 0 or +1.
        compiled_zero: what the compiled model makes of it.
        threshold: the threshold, or the name of a value of the file's graph that holds one per channel.
        note: one sentence for the user, empty if there is nothing to say.
    """

    name: str
    source: str
    kind: Literal["sign", "sign with zero", "ternary"]
    graph_zero: int
    compiled_zero: int
    threshold: float | str = 0.0
    note: str = ""


@dataclass(frozen=True)
class LayerReport:
    """One Conv, Gemm, MatMul or the like: binary or not, and why not.

    Attributes:
        name: of the node in the file.
        op: operator type in the file.
        binary: whether it runs on bits.
        activations: what its input holds, in words: "signs", "three values (-1, 0, +1)", "real values from Relu", ...
        weights: what its weights hold, in words: "±a per output channel", "3 values per output channel", ...
        reasons: why it stays real-valued, one sentence for each condition that fails; empty for a binary layer.
        deviation: largest relative difference of a weight's magnitude from its channel's; 0.0 when exact.
        zero_weights: how many of its weights are exactly 0 and were made -1.
        distance: orders the near misses: how far from binary, 0.0 for a binary layer; first the number of failed
            conditions, then the spread of the weights' magnitudes (below 1).
    """

    name: str
    op: str
    binary: bool
    activations: str
    weights: str
    reasons: tuple[str, ...] = ()
    deviation: float = 0.0
    zero_weights: int = 0
    distance: float = 0.0


@dataclass
class ImportReport:
    """Everything the front end found, in the order of the graph. Rules add to it."""

    activations: list[ActivationReport] = field(default_factory=list)
    layers: list[LayerReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def binary_layers(self) -> list[LayerReport]:
        """The layers that run on bits."""
        return [layer for layer in self.layers if layer.binary]

    def nearest_misses(self, count: int = 3) -> list[LayerReport]:
        """The real-valued layers that are nearest to being binary, nearest first."""
        return sorted((layer for layer in self.layers if not layer.binary), key=lambda layer: layer.distance)[:count]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
