"""BiMLP-tiny with parts left out, trained on scikit-learn's digits with several seeds, as the paper's Tables 3 to 5 do.

python benchmarks/training_ablations.py                            five networks, seeds 0 to 2: 15 trainings
python benchmarks/training_ablations.py --only PReLU --seed 0
python benchmarks/training_ablations.py --epochs 1 --subset small  a look whether it works
python benchmarks/training_ablations.py --output RUNS              keeps the runs; called again, it goes on where it stopped

Each network is trained in one step, binary from random weights on, with the same CNN of its seed as teacher: a float
network of the student's own architecture would be another teacher for each of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import click
from ablations import ABLATIONS, changed_model
from program import run
from training_runs import SUBSET, Row, accuracy_table, train_once
from training_variants import CNN, one_step

from bnn_deploy.models.registry import build_model
from bnn_deploy.training.recipe import load_recipe
from bnn_deploy.training.result import TrainingResult

MODEL = "bimlp_tiny"


def train_ablation(
    name: str, seed: int, folder: Path, epochs: int | None, subset: int | None, cnn: Path | None
) -> TrainingResult:
    """One run; ``cnn`` is the teacher's file, None to train one."""
    recipe = one_step(load_recipe(MODEL).with_(epochs=epochs))
    teachers = {} if cnn is None else {CNN: cnn}
    with changed_model(MODEL, ABLATIONS[name]):
        return train_once(recipe, folder / name.replace(" ", "_"), seed=seed, subset=subset, teachers=teachers)


def parameters_of(name: str) -> int:
    """Trained numbers of the network."""
    with changed_model(MODEL, ABLATIONS[name]):
        return sum(parameter.numel() for parameter in build_model(MODEL).parameters())


@click.command(help=__doc__)
@click.option("--only", "names", multiple=True, type=click.Choice(list(ABLATIONS)), default=list(ABLATIONS))
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@click.option("--epochs", type=click.IntRange(1), help="Instead of those of both steps of the recipe.")
@click.option("--subset", type=click.Choice(["small"]), help=f"Only {SUBSET} images to train on.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for the runs; a temporary one otherwise.")
def main(
    names: Sequence[str], seeds: Sequence[int], epochs: int | None, subset: str | None, output: Path | None
) -> None:
    images = SUBSET if subset else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = output or Path(temporary)
        results: dict[str, list[TrainingResult]] = {name: [] for name in names}
        for seed in seeds:
            cnn: Path | None = None
            for name in names:
                result = train_ablation(name, seed, folder / f"{seed}", epochs, images, cnn)
                cnn = cnn or result.folder / f"{CNN}.safetensors"
                results[name].append(result)
        click.echo(accuracy_table([Row(name, results[name]) for name in names], seeds))
        for name in names:
            accuracies = [100 * result.accuracy for result in results[name]]
            deviation = f", deviation over seeds {stdev(accuracies):.2f}" if len(seeds) > 1 else ""
            click.echo(f"{name}: {parameters_of(name)} parameters, mean {mean(accuracies):.2f} %{deviation}")


if __name__ == "__main__":
    run(main)
