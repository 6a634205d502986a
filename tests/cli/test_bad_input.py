"""ONNX files that nobody vouches for, through every command that reads them: one sentence, exit 2, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result

Invoke = Callable[..., Result]


def real_valued(path: Path, tiny: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")
    values = [onnx.helper.make_tensor_value_info(*value) for value in (("x", 1, [1, 4]), ("y", 1, [1, 3]))]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], [weights])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10), path)


def unsupported(path: Path, tiny: Path) -> None:
    model = onnx.load(tiny)
    # Same shapes and a valid model, but no operator that a network of this kind uses.
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    softmax.op_type, softmax.name = "LpNormalization", "strange.node"
    onnx.save(model, path)


def text(path: Path, tiny: Path) -> None:
    path.write_text("This is no model.\n" * 20)


def flipped(path: Path, tiny: Path) -> None:
    content = bytearray(tiny.read_bytes())
    content[:64] = content[:64][::-1]
    path.write_bytes(content)


BAD_FILES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "empty": (lambda path, tiny: path.write_bytes(b""), "is empty"),
    "truncated": (lambda path, tiny: path.write_bytes(tiny.read_bytes()[:-1000]), "truncated or damaged"),
    "flipped": (flipped, "damaged"),
    "text": (text, "is a text file, not an ONNX model"),
    "checkpoint": (lambda path, tiny: path.write_bytes(b"PK\x03\x04" + bytes(100)), "looks like a PyTorch file"),
    "real-valued": (real_valued, "No binary layers found"),
    "missing": (lambda path, tiny: None, "does not exist"),
    "folder": (lambda path, tiny: path.mkdir(), "not a"),
}


@pytest.mark.parametrize("command", ["compile", "inspect", "validate"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_onnx(command: str, name: str, tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if a file that is no binary model gets a traceback, a wrong reason, or a bundle."""
    make, message = BAD_FILES[name]
    if (name, command) == ("real-valued", "validate"):
        message = "takes images (4,) to 3 logits"  # what the reference is made of does not matter, that it fits does
    path = tmp_path / "bad.onnx"
    make(path, tiny_onnx)
    before = sorted(tmp_path.iterdir())
    arguments = {
        "compile": ["compile", path, "--target", "arm64", "-o", tmp_path / "bundle"],
        "inspect": ["inspect", path],
        "validate": ["validate", path, "--bundle", tiny_bundle],
    }[command]
    result = invoke(*arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and message in result.stderr
    assert "bad.onnx" in result.stderr and "Traceback" not in result.stderr and "defect" not in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_unsupported_operator_is_named(tiny_onnx: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if a model that cannot be compiled does not say which node is in the way."""
    unsupported(tmp_path / "bad.onnx", tiny_onnx)
    result = invoke("compile", tmp_path / "bad.onnx", "--target", "arm64", "-o", tmp_path / "bundle")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "LpNormalization" in result.stderr and "strange.node" in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.onnx"]


def test_an_error_while_importing_is_one_line_of_the_process(tiny_onnx: Path, tmp_path: Path) -> None:
    """Breaks if TVM, whose import is given up in the middle, writes warnings of its own beside our sentence."""
    model = onnx.load(tiny_onnx)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if name == output else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, -1, 0, 0], np.int64), "pads"))
    model.graph.node.append(onnx.helper.make_node("Pad", ["before", "pads"], [output], name="strange.pad"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9
    onnx.save(model, tmp_path / "bad.onnx")
    command = [sys.executable, "-m", "bnn_deploy.cli", "compile", "bad.onnx", "--target", "arm64", "-o", "bundle"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "strange.pad" in done.stderr and "negative" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "vax", "-o", "bundle"], "Unknown target 'vax'"),
        (["--target", "rpi", "-o", "bundle"], "Did you mean"),
        (["--target", "arm64", "-o", "bundle", "--batch", "0"], "0"),
        (["--target", "arm64", "-o", "no/bundle"], "does not exist"),
        (["--target", "arm64", "-o", "mine"], "not a bundle"),
    ],
)
def test_bad_options(
    options: list[str],
    message: str,
    tiny_onnx: Path,
    tmp_path: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Breaks if a wrong target or output is not explained, or somebody's own folder is overwritten."""
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine", "thesis.txt").write_text("precious")
    result = invoke("compile", tiny_onnx, *options)
    assert result.exit_code == 2 and result.stdout == "" and message in result.stderr
    assert [str(entry) for entry in sorted(Path().rglob("*"))] == ["mine", "mine/thesis.txt"]
