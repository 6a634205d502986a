"""Whole networks from ONNX files: logits, the values inside, and what forcing them does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bnn_deploy
from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.tensor_file import open_table
from bnn_deploy.bundle.tensor_table import TensorTable
from bnn_deploy.compiler import compile_model
from bnn_deploy.errors import CompileError, InputError
from bnn_deploy.exact.network import ExactNetwork
from bnn_deploy.metadata.calibration import calibration_inputs

IMAGES = calibration_inputs(0, 3, (1, 8, 8))


@pytest.fixture(scope="module")
def tiny_table(tiny_bundle: Path) -> TensorTable:
    return open_table(Bundle.open(tiny_bundle))


@pytest.fixture(scope="module")
def tiny(tiny_onnx: Path, tiny_table: TensorTable) -> ExactNetwork:
    network = ExactNetwork.open(tiny_onnx, 2)
    network.follow({entry.key: entry.channels_last for entry in tiny_table.entries})
    return network


def test_bimlp(tiny: ExactNetwork, tiny_bundle: Path) -> None:
    """Breaks if any operation of BiMLP is rounded otherwise in the bundle, or a batch is filled up wrongly."""
    logits = tiny.run(IMAGES)
    filled = np.concatenate([IMAGES, np.zeros_like(IMAGES[:1])])
    assert logits.tobytes() == bnn_deploy.load(tiny_bundle)(filled)[:3].tobytes()
    assert len(np.unique(logits)) == logits.size


def test_rolls_and_merged_layers(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """Breaks if rolls and merged layers are evaluated otherwise than compiled."""
    path = tiny_model("bcdnet_tiny")
    bundle = compile_model(path, "host", tmp_path / "bundle")
    network = ExactNetwork.open(path, 1)
    image = calibration_inputs(0, 1, network.input_shape[1:])
    assert network.run(image).tobytes() == bnn_deploy.load(bundle.path)(image).tobytes()


def test_every_value(tiny: ExactNetwork, tiny_bundle: Path, tiny_table: TensorTable) -> None:
    """Breaks if a value inside differs from what the bundle's kernels hand on, or one of the bundle's is not evaluated."""
    images = IMAGES[:2]
    _, observed = bnn_deploy.load(tiny_bundle).run_tapped(
        images, taps=tiny_table.taps(), total_bytes=tiny_table.total_bytes
    )
    found = tiny_table.split(observed)
    computed = {(value.tensor, value.kind): value.array for value in tiny.values(images)}
    assert {kind for _, kind in found} == {"words", "floats"}
    assert [key for key, array in found.items() if array.tobytes() != computed[key].tobytes()] == []


def test_forced_values(tiny: ExactNetwork, tiny_bundle: Path, tiny_table: TensorTable) -> None:
    """Breaks if what is read after a forced value, on the device and in the evaluation, is not the forced one on both."""
    rng, images = np.random.default_rng(0), IMAGES[:2]
    forced = {}
    for entry in tiny_table.entries:
        if entry.kind == "floats":
            forced[entry.key] = tiny.edge_values(entry.tensor, entry.shape, rng)
        else:
            shape = (entry.onnx_shape[0], *entry.onnx_shape[1:])
            forced[entry.key] = entry.from_onnx(rng.choice([-1, 1], shape))
    taps = tiny_table.taps(force=forced)
    given = tiny_table.join(forced)
    _, observed = bnn_deploy.load(tiny_bundle).run_tapped(
        images, taps=taps, total_bytes=tiny_table.total_bytes, forced=given
    )
    found = tiny_table.split(observed)
    steps = {entry.key: entry.step for entry in tiny_table.entries}
    free = {(value.tensor, value.kind): value.array for value in tiny.values(images)}
    computed = {(value.tensor, value.kind): value.array for value in tiny.values(images, forced, steps)}
    assert [key for key, array in found.items() if array.tobytes() != computed[key].tobytes()] == []
    changed = [key for key in found if free[key].tobytes() != computed[key].tobytes()]
    assert len(changed) > len(found) / 2, "forcing changed hardly anything"


def test_edges_probe_both_sides(tiny: ExactNetwork) -> None:
    """Breaks if values at edges leave out a threshold's neighbours, so that an off-by-one comparison would go unseen."""
    rng, probed = np.random.default_rng(0), 0
    for (tensor, kind), shape in tiny.shapes.items():
        thresholds = [np.asarray(bound) for bound in tiny._thresholds(tensor)] if kind == "floats" else []
        if not thresholds:
            continue
        values = tiny.edge_values(tensor, shape, rng)
        assert values.dtype == np.float32 and values.shape == shape and np.isfinite(values).all()
        if np.prod(shape[:-1]) < 3 * len(thresholds) + 10:
            continue
        for bound in thresholds:
            axes = tuple(range(len(shape) - 1))
            assert (values == bound).any(axes).all()
            assert (values == np.nextafter(bound, np.float32(np.inf))).any(axes).all()
            assert (values == np.nextafter(bound, np.float32(-np.inf))).any(axes).all()
            probed += 1
    assert probed > 20


def test_bad_input(tiny: ExactNetwork, monkeypatch: pytest.MonkeyPatch, tiny_onnx: Path) -> None:
    """Breaks if a wrong image or forced value, or an operator without a rule, crashes or is taken for something else."""
    with pytest.raises(InputError, match=r"float32 images \(2, 1, 8, 8\), got float32 \(1, 1, 8, 8\)"):
        list(tiny.values(IMAGES[:1]))
    with pytest.raises(InputError, match="float64"):
        tiny.run(IMAGES.astype(np.float64))
    with pytest.raises(InputError, match="computes no floats 'nothing'"):
        list(tiny.values(IMAGES[:2], {("nothing", "floats"): IMAGES}))
    tensor, shape = next((key[0], shape) for key, shape in tiny.shapes.items() if key[1] == "words")
    with pytest.raises(InputError, match=f"forced on '{tensor}' is float32"):
        list(tiny.values(IMAGES[:2], {(tensor, "words"): np.zeros(shape, np.float32)}))
    monkeypatch.delitem(bnn_deploy.exact.rules.RULES, "relax.nn.softmax")
    with pytest.raises(CompileError, match=r"Layer '.*' is the operator relax.nn.softmax, which the exact reference"):
        ExactNetwork.open(tiny_onnx, 2)
