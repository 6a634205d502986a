"""docs/architecture.md: its picture is that of the imports, its names exist, and its layer goes the way that it tells."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import tvm

from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.passes.pipeline import Lowered, lower
from bnn_deploy.targets.registry import get_target
from tests.docs.architecture_picture import PICTURE, picture
from tests.source_tree import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LAYER = "feature.3.binary_3x3"
# What a dump says where the page says so; passes whose trace in the IR is another line are not here.
PASSES = (
    "import_onnx",
    "fold_threshold",
    "fold_affine",
    "to_channels_last",
    "pack",
    "block_rows",
    "lower_binary",
    "plan_memory",
)


@dataclass(frozen=True)
class WalkStep:
    """A row of the walk."""

    path: Path
    name: str
    text: str


def walk() -> list[WalkStep]:
    rows = re.findall(r"^\| \d+ \| \[([\w./]+)\]\(\.\./\1\) \| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE)
    return [WalkStep(ROOT / path, name, text) for path, name, text in rows]


def test_picture_is_that_of_the_imports() -> None:
    """Breaks if the picture shows a structure that was; draw it again by ``python -m tests.docs.architecture_picture``."""
    assert PICTURE.read_text(encoding="utf-8") == picture()


@pytest.mark.parametrize("step", walk(), ids=lambda step: step.name)
def test_names_of_the_walk_exist(step: WalkStep) -> None:
    """Breaks if the walk names a function that is not in its file any more."""
    source = step.path.read_text(encoding="utf-8")
    if step.path.suffix == ".c":
        assert re.search(rf"^\w.*\b{step.name}\(", source, re.MULTILINE)
        return
    defined = {node.name for node in ast.parse(source).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert step.name in defined


def test_passes_of_the_page_are_those_that_ran(compiled: tuple[Lowered, dict[str, str], list[str]]) -> None:
    """Breaks if a pass was added, or moved, and the table of the page shows another order."""
    table = PAGE.partition("## The passes in order")[2].partition("## The life of a layer")[0]
    shown = re.findall(r"`(\w+)`(?:,| \|)", table)
    assert shown == compiled[2]


def test_walk_is_read() -> None:
    """Breaks if the table has another form, and the tests here look at nothing."""
    steps = walk()
    assert len(steps) == 19
    assert set(PASSES) <= {step.name for step in steps}


@pytest.fixture(scope="module")
def compiled(
    tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Lowered, dict[str, str], list[str]]:
    """The network of the page lowered for VPOPCNTDQ, the dumps of passes by their names, and the names in order."""
    folder = tmp_path_factory.mktemp("ir")
    model = load_onnx(tiny_model("bcdnet_tiny"))
    names: list[str] = []
    lowered = lower(model, get_target("x86-64-v4-vpopcntdq"), 1, folder, names.append)
    return lowered, {path.stem.partition("_")[2]: path.read_text() for path in folder.glob("*.txt")}, names


@pytest.mark.parametrize("step", [step for step in walk() if step.name in PASSES], ids=lambda step: step.name)
def test_passes_make_of_the_layer_what_the_page_says(
    compiled: tuple[Lowered, dict[str, str], list[str]], step: WalkStep
) -> None:
    """Breaks if a pass makes something else of the layer, or its work moved to another pass."""
    variable = LAYER.replace(".", "_")
    lines = compiled[1][step.name].splitlines()
    own = [line for line in lines if re.search(rf"\b{variable}_?\d*(:| =)|# {LAYER}$", line)]
    before = [line for line in lines if re.search(r"\bfeature_3_binary_activation1_?\d*:", line)]
    assert own
    for shown in re.findall(r"`(bnn\.\w+|\([\d, ]+\)|binary_conv2d_\w+|arena|workspace)`", step.text):
        assert any(shown in line for line in own), f"{step.name}: no {shown} in {own}"
    if step.name == "fold_threshold":
        assert any("bnn.sign" in line and "R.const(0.0" not in line for line in before)
    if step.name == "fold_affine":
        assert not any("batch_norm" in line for line in lines)


def test_kernel_counts_bits_with_the_instruction(compiled: tuple[Lowered, dict[str, str], list[str]]) -> None:
    """Breaks if the layer's kernel is compiled to something else than the popcount instruction that the page ends with."""
    lowered = compiled[0]
    step = next(step for step in lowered.plan.steps if step.layer == LAYER)
    target = tvm.target.Target(get_target("x86-64-v4-vpopcntdq").llvm)
    kernel = tvm.IRModule({step.kernel: lowered.kernels[0][step.kernel]})
    assert re.search(r"\bvpopcntd\b.*%zmm", tvm.tirx.build(kernel, target).inspect_source("asm"))
