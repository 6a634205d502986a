"""What is known about an epoch when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerRecord:
    """A binary layer (its weights) or a binarisation (its channels), by its path in the model; what it has not is 0."""

    layer: str
    flipped: int = 0
    weights: int = 0
    dead: int = 0
    channels: int = 0


def layer_records(flips: Mapping[str, tuple[int, int]], dead: Mapping[str, tuple[int, int]]) -> tuple[LayerRecord, ...]:
    """Of ``SignFlips.rates()`` and ``DeadChannels.counts()``: first the binary layers, then the binarisations."""
    return (
        *(LayerRecord(layer, flipped=flipped, weights=weights) for layer, (flipped, weights) in flips.items()),
        *(LayerRecord(layer, dead=count, channels=channels) for layer, (count, channels) in dead.items()),
    )


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of one step: losses are means over its images in nats, accuracies shares of 0..1.

    ``epoch`` counts from 1 to ``epochs``. ``learning_rate`` is that of the epoch's last optimizer step.
    ``divergence`` is None without a teacher; ``train_accuracy`` is that on the augmented images while they are trained on.
    ``seconds`` are those of training and testing, ``images_per_second`` those of training only.
    """

    step: str
    epoch: int
    epochs: int
    learning_rate: float
    loss: float
    cross_entropy: float
    divergence: float | None
    train_accuracy: float
    test_accuracy: float
    test_loss: float
    seconds: float
    images_per_second: float
    layers: tuple[LayerRecord, ...] = ()

    @property
    def flip_rate(self) -> float | None:
        """Share of the binary weights whose sign the epoch changed; None in a step without binary weights."""
        weights = sum(layer.weights for layer in self.layers)
        return sum(layer.flipped for layer in self.layers) / weights if weights else None

    @property
    def channels(self) -> int:
        """Binarised channels; 0 in a step without binary activations."""
        return sum(layer.channels for layer in self.layers)

    @property
    def dead_channels(self) -> int | None:
        """Binarised channels with one and the same value on all test images; None where nothing is binarised."""
        return sum(layer.dead for layer in self.layers) if self.channels else None
