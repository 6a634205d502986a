"""A run that diverges stops with one sentence, and its last good checkpoint can still be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnn_deploy.training import engine, runs
from bnn_deploy.training.checkpoint import NAME
from bnn_deploy.training.engine import Diverged
from bnn_deploy.training.loader import TrainingBatch, training_batches
from bnn_deploy.training.networks import build_network
from bnn_deploy.training.recipe import Recipe
from bnn_deploy.training.runs import train
from tests.training.tiny_run import BATCHES, BINARY, RECIPE, At, options, tiny_data

ALONE = replace(RECIPE, steps=(replace(BINARY, teacher=""),))


def diverging(folder: Path, recipe: Recipe, after: tuple[str, int, int]) -> tuple[str, bytes]:
    """Run into ``Diverged``; returns its sentence, and the checkpoint after the optimizer step ``after``."""
    copies: list[bytes] = []
    # Called before the checkpoint of its optimizer step is written: that of the one before is still there.
    report = At(*after, lambda: copies.append((folder / NAME).read_bytes()))
    with pytest.raises(Diverged) as raised:
        train(recipe, tiny_data(), folder, options(report))
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value) and str(folder / NAME) in str(raised.value)
    return str(raised.value), copies[0]


def test_nan_in_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a NaN of one picture reaches the checkpoint, and days of training are lost."""
    folder = tmp_path / "run"

    def with_nan(*arguments: Any, **options: Any) -> Iterator[TrainingBatch]:
        for number, batch in enumerate(training_batches(*arguments, **options), options["first"]):
            if (arguments[1].name, options["epoch"], number) == ("binary", 1, 1):
                batch.images[2, 0, 3, 3] = torch.nan
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(engine, "training_batches", with_nan)
        sentence, before = diverging(folder, RECIPE, ("binary", 2, 1))
    assert "the loss is nan in step 'binary', epoch 2, optimizer step 2 of 3, at a learning rate of" in sentence
    kept = (folder / NAME).read_bytes()
    assert kept != before, "the checkpoint of the good optimizer step before it was not written"
    report = At("", 0, 0, lambda: None)
    assert train(RECIPE, tiny_data(), folder, options(report, resume=True)).weights.is_file()
    assert "after 1 of 2 epochs and 1 optimizer steps" in report.notes[-1]


def test_infinite_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a gradient that is infinite while the loss is not becomes NaN in the weights and in the average."""
    steps: list[int] = []

    def infinite(gradient: Tensor) -> Tensor:
        steps.append(len(steps))
        return gradient * torch.inf if len(steps) == 2 else gradient

    def built(*arguments: Any, **options: Any) -> nn.Module:
        network = build_network(*arguments, **options)
        next(network.parameters()).register_hook(infinite)
        return network

    monkeypatch.setattr(runs, "build_network", built)
    folder = tmp_path / "run"
    with pytest.raises(
        Diverged, match=r"the norm of the gradient is (inf|nan) in step 'binary', epoch 1, optimizer step 2"
    ):
        train(ALONE, tiny_data(), folder, options())
    monkeypatch.undo()
    assert train(ALONE, tiny_data(), folder, options(resume=True)).weights.is_file()


@pytest.mark.parametrize("last", [1, BATCHES])
def test_weights_that_are_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """If this fails, infinite weights that no loss has shown yet are written, in the middle or at the end of an epoch."""
    networks: list[nn.Module] = []

    def built(*arguments: Any, **options: Any) -> nn.Module:
        networks.append(build_network(*arguments, **options))
        return networks[-1]

    def break_it() -> None:
        with torch.no_grad():
            next(networks[0].parameters()).flatten()[0] = torch.inf

    monkeypatch.setattr(runs, "build_network", built)
    folder = tmp_path / "run"
    with pytest.raises(Diverged, match=r"is not finite after .* of step 'binary'"):
        train(ALONE, tiny_data(), folder, options(At("binary", 1, last, break_it)))
    monkeypatch.undo()
    report = At("", 0, 0, lambda: None)
    train(ALONE, tiny_data(), folder, options(report, resume=True))
    assert not [
        note for note in report.notes if f"after 0 of 2 epochs and {last - 1} " not in note and "Only" not in note
    ]
    assert len((folder / "log.csv").read_text().splitlines()) == 1 + 2
