"""Two processes under torchrun (gloo) against one process with the same batches, through the command line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from bnn_deploy.models.layers import BinaryConv2d
from bnn_deploy.models.registry import build_model
from bnn_deploy.training.data import open_training_data
from bnn_deploy.training.options import TrainOptions
from bnn_deploy.training.recipe import Recipe
from bnn_deploy.training.runs import train
from bnn_deploy.training.step import Step

# 24 digits, 3 optimizer steps an epoch. No Mixup: each process mixes its own images, so that the batches would differ.
SUBSET, BATCH = 24, 8
CNN = Step(
    "cnn", model="resnet_tiny", activations="real", weights="real", epochs=1, batch_size=BATCH, learning_rate=5e-3
)
BINARY = Step(
    "binary", teacher="cnn", epochs=2, batch_size=BATCH, learning_rate=5e-3, average=0.9, gradient_clip=5.0, shift=1
)
RECIPE = Recipe("bimlp_tiny", None, "compared between one process and two", (CNN, BINARY))
ACCUMULATE = (1, 2)
# Calls the command line once for each number of accumulated passes: an interpreter that imports PyTorch costs seconds.
SCRIPT = """
import sys
from bnn_deploy.cli import main

passes, folder, *arguments = sys.argv[1:]
for number in passes.split(","):
    sys.argv = ["bnn-deploy", *arguments, "--accumulate", number, "-o", f"{folder}/two{number}"]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""

# The two processes add the same numbers in another order. A sum of n terms is off by about sqrt(n) u of their size with
# u = 2**-53 = 1.1e-16: at most sqrt(8 x 64) u = 2.5e-15 for BN's sums over 8 images of 8 x 8, and over the 40 layers with
# such sums between an image and its loss some 2e-14 of the activations, of the loss, and of each gradient. Adam divides a
# gradient g by abs(g) + 1e-8, so that an error d in a gradient near zero becomes 5e-3 d / 1e-8 in its parameter: with
# gradients below 1 and d = 2e-14, 1e-8 in each step; but where that happens the gradient is below 1e-8 and the parameter
# moves the loss by 1e-16, and 1e5 such parameters in 9 steps by 1e-10.
LOSS_TOLERANCE = 1e-9
# 9 such steps; and the files hold float32, which adds one rounding, 2**-23 at most, of each value.
WEIGHT_TOLERANCE = 1e-7
# In evaluation BN subtracts the running mean, which follows slowly, so that what moved these parameters is seen there: 9
# times 1e-8 in a hundred channels, each with a slope below 0.1.
TEST_LOSS_TOLERANCE = 1e-6
# All this holds while no sign changes sides. A step binarises 8 x 5e4 activations and 8e4 weights; 6 steps with two tests of
# 24 images make 5e6 values, of which a share below 4 per unit (weights of deviation 0.1) lies near the threshold. Most are
# off by 1e-13, so that 5e6 x 4 x 1e-13 = 2e-6 signs are expected to differ between the two runs, and of the 1e5 test values
# or so that follow a parameter moved by 1e-8, 4e-3. (In float32, half a billion times that: the curves would part.) Of 40
# activations flipped one at a time, 36 moved a batch's loss by more than 1e-5; BN that is not synchronised moves that of an
# epoch by 3e-4, gradients that are not averaged by 1e-2.


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders one1, one2, two1, two2: by processes and accumulated passes; and what torchrun said."""
    folder = tmp_path_factory.mktemp("torchrun")
    (folder / "script.py").write_text(SCRIPT)
    (folder / "recipe.toml").write_text(RECIPE.to_toml())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["train", "bimlp_tiny", "--data", "digits", "--recipe", str(folder / "recipe.toml"), "--format", "json"]
    options = ["--subset", str(SUBSET), "--precision", "float64", "--device", "cpu", "--threads", "1"]
    done = subprocess.run(
        [*torchrun, str(folder / "script.py"), ",".join(map(str, ACCUMULATE)), str(folder), *command, *options],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    data = open_training_data(Path("digits"), "bimlp_tiny", subset=SUBSET)
    for passes in ACCUMULATE:
        single = TrainOptions(precision="float64", accumulate=passes, device="cpu", threads=1)
        train(RECIPE, data, folder / f"one{passes}", single)
    return folder


def log_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("passes", ACCUMULATE)
def test_two_processes_learn_what_one_does(runs: Path, passes: int) -> None:
    """Breaks when training in several processes is another training: other batches, BN, gradients, averages or tests.

    With accumulated passes BN normalises by each pass's images alone, those of all processes together, and its running
    statistics move once a pass. It is another training than without, but the k-th passes of two processes hold the same
    images as that of one, so the runs are to agree all the same.
    """
    one, two = log_of(runs / f"one{passes}"), log_of(runs / f"two{passes}")
    assert len(one) == len(two) == CNN.epochs + BINARY.epochs
    for alone, together in zip(one, two, strict=True):
        for column in (
            "step",
            "epoch",
            "learning_rate",
            "train_accuracy",
            "test_accuracy",
            "flip_rate",
            "dead_channels",
        ):
            assert alone[column] == together[column], column
        for column in ("loss", "cross_entropy", "divergence", "test_loss"):
            assert (alone[column] == "") == (together[column] == ""), column
            tolerance = TEST_LOSS_TOLERANCE if column == "test_loss" else LOSS_TOLERANCE
            if alone[column]:
                assert float(together[column]) == pytest.approx(float(alone[column]), rel=0, abs=tolerance), column
    assert (runs / f"one{passes}" / "layers.csv").read_text() == (runs / f"two{passes}" / "layers.csv").read_text()
    one_weights, two_weights = (load_file(runs / f"{name}{passes}" / "weights.safetensors") for name in ("one", "two"))
    assert one_weights.keys() == two_weights.keys()
    for name, value in one_weights.items():
        np.testing.assert_allclose(two_weights[name], value, rtol=2**-23, atol=WEIGHT_TOLERANCE, err_msg=name)
    layers = [name for name, part in build_model("bimlp_tiny").named_modules() if isinstance(part, BinaryConv2d)]
    assert len(layers) > 20
    for name in layers:
        one_signs, two_signs = one_weights[f"{name}.weight"] > 0, two_weights[f"{name}.weight"] > 0
        np.testing.assert_array_equal(one_signs, two_signs, err_msg=name)


def test_accumulation_changes_what_batch_norm_sees(runs: Path) -> None:
    """Breaks when ``--accumulate`` does nothing, which the comparison above would not notice."""
    first, second = (float(log_of(runs / f"one{passes}")[0]["loss"]) for passes in ACCUMULATE)
    assert abs(first - second) > 1e-3


def test_only_the_first_process_speaks(runs: Path) -> None:
    """Breaks when every process prints, so that the result is no JSON document any more and each epoch is told twice."""
    decoder = json.JSONDecoder()
    text = (runs / "stdout").read_text().strip()
    for passes in ACCUMULATE:
        result, end = decoder.raw_decode(text)
        assert Path(result["weights"]) == runs / f"two{passes}" / "weights.safetensors"
        text = text[end:].strip()
    assert text == ""
    assert (runs / "stderr").read_text().count("binary 2/2") == len(ACCUMULATE)
