"""The benchmarks of training train what they say they do; their accuracies are in docs/training_results.md."""

from __future__ import annotations

from pathlib import Path

import ablations
import pytest
import torch
import training
import training_ablations
from click.testing import CliRunner
from safetensors.torch import load_file
from training_variants import VARIANTS

from bnn_deploy.models.layers import RPReLU
from bnn_deploy.models.registry import build_model
from bnn_deploy.training.recipe import load_recipe

LOOK = ["--seed", "0", "--epochs", "1", "--subset", "small"]


def same_weights(first: Path, second: Path) -> bool:
    """Whether two files hold the same bits; their metadata name different recipes."""
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("model", ["bimlp_tiny", "bcdnet_tiny"])
def test_variants_differ_in_what_they_say(model: str) -> None:
    """A variant trains its student longer than another, or the one without teachers has one."""
    recipe = load_recipe(model)
    students = {
        name: [step for step in variant(recipe).steps if step.activations == "binary"]
        for name, variant in VARIANTS.items()
    }
    assert len({sum(step.epochs for step in steps) for steps in students.values()}) == 1
    assert [step.weights for step in students["two steps"]] == ["real", "binary"]
    assert [step.weights for step in students["one step"]] == ["binary"]
    assert not any(step.start for step in students["one step"])
    assert [step.teacher for step in students["no distillation"]] == ["", ""]
    assert all(
        step.teacher and step.distillation == 0.9 for name in ("two steps", "one step") for step in students[name]
    )


def test_table_of_variants(tmp_path: Path) -> None:
    """The benchmark does not run, or trains the teachers again for each variant."""
    result = CliRunner().invoke(training.main, ["--model", "bcdnet_tiny", *LOOK, "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert [line.split("|")[2].strip() for line in lines[1:]] == ["1 + 1", "2", "1 + 1"]
    runs = tmp_path / "bcdnet_tiny" / "0"
    assert same_weights(runs / "two_steps" / "cnn.safetensors", runs / "one_step" / "cnn.safetensors")
    assert "cnn 1/1" not in result.stderr.partition("one_step")[2]


def test_ablations_change_what_they_say() -> None:
    """An ablation leaves the network as it is, keeps parameters that nothing trains, or stays after its run."""
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    parameters: dict[str, int] = {}
    biased: dict[str, int] = {}
    for name, change in ablations.ABLATIONS.items():
        with ablations.changed_model("bimlp_tiny", change):
            model = build_model("bimlp_tiny")
        model.train()(images).square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters()), name
        parameters[name] = sum(parameter.numel() for parameter in model.parameters())
        biased[name] = sum(isinstance(module, RPReLU) for module in model.modules())
    # Each block has three MLP-like shortcuts of their own BN (2) and RPReLU (3 values), over 4 dim and dim / 4 channels.
    shortcuts = sum(5 * (4 * dim + dim // 4) for dim in (32, 64))
    whole = parameters["BiMLP-tiny"]
    assert parameters["without uni-shortcut"] == whole - shortcuts
    assert parameters["single branch"] < whole
    activations = whole - parameters["ReLU"]
    assert whole - parameters["PReLU"] == activations * 2 // 3
    assert biased["PReLU"] == biased["ReLU"] == 0 < biased["single branch"] < biased["without uni-shortcut"]
    assert sum(parameter.numel() for parameter in build_model("bimlp_tiny").parameters()) == whole


def test_ablations_without_uni_shortcut_keep_the_others() -> None:
    """Shortcuts between equal numbers of channels are left out too, or those of other layers still count."""
    with ablations.changed_model("bimlp_tiny", ablations.without_uni_shortcut):
        model = build_model("bimlp_tiny")
    block = model.network[0][0]
    with torch.no_grad():
        for layer in (block.mlp.norm2, block.attn.norm_proj, block.attn.norm_h):
            layer.weight.zero_()
            layer.bias.zero_()
    images = torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(0))
    taken: dict[str, torch.Tensor] = {}
    for name, layer in (("mlp", block.mlp.act3), ("proj", block.attn.act_proj), ("h", block.attn.act_h)):
        layer.register_forward_hook(lambda module, inputs, output, name=name: taken.__setitem__(name, inputs[0]))
    block(images)
    assert not taken["mlp"].any() and not taken["h"].any()
    assert taken["proj"].any()


def test_table_of_ablations(tmp_path: Path) -> None:
    """The benchmark does not run, or each network has a CNN of its own as teacher."""
    names = ["without uni-shortcut", "single branch"]
    arguments = [word for name in names for word in ("--only", name)]
    result = CliRunner().invoke(training_ablations.main, [*arguments, *LOOK, "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert [line.split("|")[1].strip() for line in result.stdout.splitlines()[2:4]] == names
    assert same_weights(*(tmp_path / "0" / name.replace(" ", "_") / "cnn.safetensors" for name in names))
