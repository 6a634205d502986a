"""What a training run gave."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StepResult:
    """One finished step.

    Attributes:
        name: of the step.
        model: the network that it trained.
        activations, weights: "binary" or "real".
        epochs: that it was trained for; 0 where its weights were given.
        accuracy: share of the test images that the network in ``file`` classifies rightly, 0..1, in float32.
        file: its weights, a name within the run's folder.
    """

    name: str
    model: str
    activations: str
    weights: str
    epochs: int
    accuracy: float
    file: str


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes:
        folder: of the run.
        weights: the file that `bnn-deploy export` takes.
        model, variant: what was trained; the variant is "" where the model has none.
        steps: in order; the last one is what ``weights`` holds.
        accuracy: of the last step.
        test_images: that all accuracies are shares of.
        train_images: that it learned from.
        class_names: in the order of the logits.
        seconds: of training and evaluation, those before interruptions included.
        notes: what one should know of the data and of a resumed run, a sentence each.
    """

    folder: Path
    weights: Path
    model: str
    variant: str
    steps: tuple[StepResult, ...]
    accuracy: float
    test_images: int
    train_images: int
    class_names: tuple[str, ...]
    seconds: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; paths as text."""
        return {**asdict(self), "folder": str(self.folder), "weights": str(self.weights)}
