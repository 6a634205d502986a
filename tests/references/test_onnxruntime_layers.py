"""Layers from onnxruntime: values and distances that are known by hand, and files of other origin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from bnn_deploy.bits import pack_bits
from bnn_deploy.errors import InputError, ModelFileError
from bnn_deploy.frontend.open_model import open_model
from bnn_deploy.passes.onnx.import_report import ImportOptions
from bnn_deploy.references import graph_layers
from bnn_deploy.references.layer_values import HISTOGRAM_EDGES, LayerValues
from bnn_deploy.references.margin import RELATIVE_MARGIN, near_limit
from bnn_deploy.references.onnxruntime_layers import OnnxruntimeLayers
from tests.frontend import plain_networks as networks
from tests.frontend.exporters import export
from tests.references.graphs import (
    CLASSES,
    FEATURES,
    SPECIAL,
    TINY,
    images,
    layers_of,
    linear,
    one_sign,
    ours,
    two_signs,
    write,
)


@pytest.mark.parametrize(
    ("zero", "expected"),
    [(-1, [-1, -1, -1, 1, -1, 1, -1, 1]), (1, [1, 1, -1, 1, -1, 1, -1, 1]), (0, [0, 0, 0, 1, -1, 1, -1, 1])],
)
def test_conventions(zero: int, expected: list[int], tmp_path: Path) -> None:
    """Breaks if ±0, NaN, subnormals or infinities get another sign, distance or place in the histogram than documented."""
    values = layers_of(one_sign(tmp_path / "m.onnx", zero)).capture(SPECIAL[None])
    sign = values.signs["s"]
    assert (sign.layer, sign.tensor, sign.fed_by, sign.ternary) == ("sign", "s", (), zero == 0)
    assert sign.values.dtype == np.int8 and sign.values.tolist() == [expected]
    assert sign.scale == 1.0
    assert sign.near_index.tolist() == [0, 1, 3, 4]
    assert sign.near_distance.tolist() == [0, 0, TINY, TINY]
    # On the threshold; nearer than 1e-8; one decade after the other; farther than 0.1, NaN and infinities among them.
    assert sign.histogram == (2, 2, 0, 0, 0, 0, 0, 0, 0, 4)
    assert len(sign.histogram) == len(HISTOGRAM_EDGES)


@pytest.mark.parametrize("shape", [(FEATURES,), (2, FEATURES)])
@pytest.mark.parametrize("batch", ["n", 3])
def test_values_and_distances(shape: tuple[int, ...], batch: int | str, tmp_path: Path) -> None:
    """Breaks if a threshold computed at run time, a three-valued sign, or a batch that is not full is read wrongly."""
    given = images(5, shape)
    values = layers_of(two_signs(tmp_path / "m.onnx", shape, batch)).capture(given, ["x1", "x2", "s1"])
    np.testing.assert_array_equal(values.floats["s1"], values.signs["s1"].values)
    assert set(values.float_margins) == {"x1", "x2", "s1", "logits"}
    x1, t1 = 2 * given, given.mean(axis=-1, keepdims=True)
    np.testing.assert_array_equal(values.floats["x1"], x1)
    check_sign(values, "s1", np.where(x1 > t1, 1, -1), np.abs(x1 - t1), max(np.abs(x1).max(), np.abs(t1).max()))
    x2 = values.floats["x2"]
    ternary = np.where(x2 > 0.5, 1, np.where(x2 < -0.5, -1, 0))
    assert set(ternary.reshape(-1)) == {-1, 0, 1}
    check_sign(values, "s2", ternary, np.minimum(np.abs(x2 - 0.5), np.abs(x2 + 0.5)), max(0.5, np.abs(x2).max()))
    assert [sign.fed_by for sign in values.signs.values()] == [("double", "mean"), ("first", "scale")]
    assert values.logits.shape == (5, 3 * int(np.prod(shape[:-1]))) and not values.notes


def check_sign(values: LayerValues, tensor: str, expected: np.ndarray, distance: np.ndarray, scale: float) -> None:
    sign = values.signs[tensor]
    np.testing.assert_array_equal(sign.values, expected)
    assert sign.scale == scale
    distance = distance.reshape(-1)
    near = np.flatnonzero(distance <= near_limit(sign.margin) * scale)
    np.testing.assert_array_equal(sign.near_index, near)
    np.testing.assert_array_equal(sign.near_distance, distance[near])
    np.testing.assert_array_equal(sign.within(0.0), np.flatnonzero(distance == 0))
    assert sign.histogram[0] == (distance == 0).sum() and sum(sign.histogram) == distance.size
    assert sign.histograms.shape == (5, len(HISTOGRAM_EDGES))
    # Eighths and their means: an exact graph, so that only the noise itself is measured.
    assert RELATIVE_MARGIN <= sign.margin <= 2.0**-16


def test_batch_by_batch_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if images that do not fit in memory at once get other values, or distances relative to another scale."""
    layers = layers_of(two_signs(tmp_path / "m.onnx"))
    given = images(7) * np.arange(1, 8, dtype=np.float32)[:, None]
    whole = layers.capture(given, ["x2"])
    monkeypatch.setattr(graph_layers, "may_keep", lambda images: False)
    monkeypatch.setattr(graph_layers, "images_at_once", lambda shape: 2)
    parts = layers.capture(given, ["x2"])
    for tensor, sign in whole.signs.items():
        other = parts.signs[tensor]
        np.testing.assert_array_equal(sign.values, other.values)
        np.testing.assert_array_equal(sign.histograms, other.histograms)
        np.testing.assert_array_equal(sign.within(0.0), other.within(0.0))
        assert sign.scale == other.scale
    np.testing.assert_array_equal(whole.floats["x2"], parts.floats["x2"])
    np.testing.assert_array_equal(whole.logits, parts.logits)


def test_wrong_requests(tmp_path: Path) -> None:
    """Breaks if images that do not fit, or values that are not there, give a traceback of onnxruntime."""
    layers = layers_of(two_signs(tmp_path / "m.onnx"))
    for wrong in (images(1, (7,)), images(1).astype(np.float64), images(0)):
        with pytest.raises(InputError, match="takes float32 images of shape"):
            layers.capture(wrong)
    with pytest.raises(ModelFileError, match="no value 'nothing'"):
        layers.capture(images(1), ["nothing"])
    sign = layers.capture(images(1)).signs["s1"]
    with pytest.raises(InputError, match="sign1: the reference keeps distances up to"):
        sign.within(0.5)


class TwoSigns(nn.Module):
    """(N, 1, 8, 8) to (N, 10), the second sign behind a MaxPool in the file as compiled, in front of it as written."""

    shape = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.sign1 = networks.CastSign()
        self.conv = networks.ScaledSignConv(8, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.sign2 = networks.CastSign()
        self.pool = nn.MaxPool2d(2)
        self.layer = networks.ScaledSignLinear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(self.sign1(self.stem(x))))
        return self.layer(self.pool(self.sign2(x)).flatten(1))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return export(TwoSigns().eval(), tmp_path_factory.mktemp("foreign") / "m.onnx", TwoSigns.shape, "script")


def test_what_the_file_computes(foreign: Path) -> None:
    """Breaks if values of a file from elsewhere, or of a sign that the front end moved, are not those of the file."""
    given = np.random.default_rng(0).standard_normal((3, *TwoSigns.shape)).astype(np.float32)
    layers = layers_of(foreign)
    assert layers._file is not None and len(layers._file.signs) == 1 and len(layers.places) == 2
    values = layers.capture(given)
    torch.manual_seed(0)
    module = TwoSigns().eval()
    with torch.inference_mode():
        first = module.stem(torch.tensor(given))
        second = module.norm(module.conv(module.sign1(first)))
        expected = [module.sign1(first).numpy(), module.pool(module.sign2(second)).numpy()]
    for sign, wanted in zip(values.signs.values(), expected, strict=True):
        differing = np.flatnonzero(sign.values != wanted)
        assert not np.setdiff1d(differing, sign.within()).size
    assert not values.notes


def test_a_fault_of_the_front_end_shows(foreign: Path) -> None:
    """Breaks if the reference for a file from elsewhere repeats what the front end got wrong."""
    given = np.random.default_rng(0).standard_normal((3, *TwoSigns.shape)).astype(np.float32)
    right = next(iter(layers_of(foreign).capture(given).signs.values()))

    opened = open_model(foreign)
    stem = next(node for node in opened.model.graph.node if node.op_type == "Conv")
    bias = next(tensor for tensor in opened.model.graph.initializer if tensor.name == stem.input[2])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1), bias.name))
    layers = OnnxruntimeLayers(opened, foreign)
    found = next(iter(layers.capture(given).signs.values()))
    np.testing.assert_array_equal(found.values, right.values)
    # The fault is one: what was recognised computes other signs.
    layers._file = None
    assert (next(iter(layers.capture(given).signs.values())).values != right.values).any()


def test_zero_that_was_changed(tmp_path: Path) -> None:
    """Breaks if the file's sign(0) = 0 is taken for the compiled -1 without a word, and every later layer is then wrong."""

    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sign = networks.PolynomialSign()
            self.layer = networks.ScaledSignLinear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.sign(x.flatten(1)))

    torch.manual_seed(0)
    path = export(Pixels().eval(), tmp_path / "m.onnx", (1, 8, 8), "script")
    given = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    layers = layers_of(path, options=ImportOptions(sign_zero="-1"))
    assert not layers.capture(given).notes
    given[0, 0, 0, 0] = 0
    values = layers.capture(given)
    assert len(values.notes) == 1 and "exactly on a threshold" in values.notes[0]
    sign = next(iter(values.signs.values()))
    np.testing.assert_array_equal(sign.values, np.where(given.reshape(2, -1) > 0, 1, -1))
    kept = next(iter(layers_of(path, options=ImportOptions(sign_zero="0")).capture(given).signs.values()))
    np.testing.assert_array_equal(kept.values, np.sign(given.reshape(2, -1)))
    assert kept.ternary and kept.within(0.0).tolist() == [0]


def test_several_outputs_are_refused(tmp_path: Path) -> None:
    """Breaks if a model whose logits are one of two outputs is compared by whichever comes first."""
    path = two_signs(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_tensor_value_info("x2", onnx.TensorProto.FLOAT, ["n", FEATURES]))
    onnx.save(model, path)
    with pytest.raises(InputError, match="1 inputs and 2 outputs"):
        layers_of(path)


def test_margins_of_long_sums(tmp_path: Path) -> None:
    """Breaks if the mean of a large image, added up in another order than onnxruntime's, counts as a fault."""
    terms = 112 * 112
    layer, weights = linear("s", "logits", "layer", CLASSES)
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], "mean", keepdims=1),
        helper.make_node("Mul", ["mean", "channels"], ["x"], "spread"),
        ours("Sign", ["x", "t"], "s", "sign", zero=-1),
        layer,
    ]
    constants = {
        "axes": np.array([1]),
        "channels": np.ones((1, FEATURES), np.float32),
        "t": np.float32(0.5),
        "layer.packed": pack_bits(weights),
    }
    path = write(tmp_path / "m.onnx", nodes, constants, (terms,), "n")
    given = np.random.default_rng(0).uniform(0, 1, (4, terms)).astype(np.float32)
    values = layers_of(path).capture(given, ["mean"])
    one_by_one = np.cumsum(given, axis=1, dtype=np.float32)[:, -1:] / np.float32(terms)
    error = np.abs(one_by_one - given.mean(axis=1, dtype=np.float64, keepdims=True)).max() / one_by_one.max()
    # Each addition is rounded by up to 2^-24 of the sum: 2^-24 sqrt(n) of it in all, if not in one direction.
    assert 2.0**-21 < error < values.float_margins["mean"] < 4 * 2.0**-24 * terms**0.5
    assert values.signs["s"].margin > error, "a sign of the mean has less of a margin than the mean"
