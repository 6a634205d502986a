"""The papers' two training steps beside one step and beside no teachers, on scikit-learn's digits with several seeds.

python benchmarks/training.py                            bimlp_tiny and bcdnet_tiny, seeds 0 to 2: 18 trainings
python benchmarks/training.py --model bcdnet_tiny --seed 0
python benchmarks/training.py --epochs 1 --subset small  a look whether it works
python benchmarks/training.py --output RUNS              keeps the runs; called again, it goes on where it was stopped

Every student is trained for as many epochs: the two steps together, one step that is binary from random weights on, and
the two steps on labels alone (a = 0). Accuracies are those after the last epoch, on the 360 test images. Teachers are
trained with the two steps and given to the others of the same seed; seconds of the two steps are with their teachers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from program import run
from training_runs import SUBSET, Row, accuracy_table, train_once
from training_variants import BINARY, BINARY_ACTIVATIONS, VARIANTS

from bnn_deploy.training.recipe import load_recipe
from bnn_deploy.training.result import TrainingResult


def train_variants(
    model: str, seed: int, folder: Path, epochs: int | None, subset: int | None
) -> dict[str, TrainingResult]:
    """One run of each variant."""
    recipe = load_recipe(model).with_(epochs=epochs)
    results: dict[str, TrainingResult] = {}
    teachers: dict[str, Path] = {}
    for name, variant in VARIANTS.items():
        result = train_once(
            variant(recipe), folder / name.replace(" ", "_"), seed=seed, subset=subset, teachers=teachers
        )
        results[name] = result
        for step in result.steps:
            if step.name not in (BINARY_ACTIVATIONS, BINARY):
                teachers.setdefault(step.name, result.folder / step.file)
    return results


@click.command(help=__doc__)
@click.option("--model", "models", multiple=True, default=("bimlp_tiny", "bcdnet_tiny"), show_default=True)
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@click.option("--epochs", type=click.IntRange(1), help="Of every step, instead of the recipe's.")
@click.option("--subset", type=click.Choice(["small"]), help=f"Only {SUBSET} images to train on.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for the runs; a temporary one otherwise.")
def main(
    models: Sequence[str], seeds: Sequence[int], epochs: int | None, subset: str | None, output: Path | None
) -> None:
    images = SUBSET if subset else None
    with tempfile.TemporaryDirectory() as temporary:
        for model in models:
            folder = (output or Path(temporary)) / model
            runs = [train_variants(model, seed, folder / f"{seed}", epochs, images) for seed in seeds]
            rows = [Row(name, [results[name] for results in runs]) for name in VARIANTS]
            taught = [results["two steps"].steps for results in runs]
            teachers = "; ".join(
                f"{step.name} " + ", ".join(f"{100 * steps[number].accuracy:.2f}" for steps in taught)
                for number, step in enumerate(taught[0])
                if step.name not in (BINARY_ACTIVATIONS, BINARY)
            )
            click.echo(f"\n{model}, test accuracy in % (teachers: {teachers})\n\n{accuracy_table(rows, seeds)}")


if __name__ == "__main__":
    run(main)
