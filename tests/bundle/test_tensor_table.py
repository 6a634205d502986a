"""tensors.json: which ONNX values a bundle's kernels write, and where; and the arrays that are made of the bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.tensor_file import NAME, open_table, table_text
from bnn_deploy.bundle.tensor_places import written_values
from bnn_deploy.bundle.tensor_table import TensorEntry
from bnn_deploy.compiler import compile_model
from bnn_deploy.errors import BundleError, InputError
from bnn_deploy.frontend.open_model import open_model
from bnn_deploy.ops.registry import DOMAIN
from bnn_deploy.passes.pipeline import lower_packed, pack_network
from bnn_deploy.targets.registry import get_target

# The tiny models have the layers of the large ones.
TINY_MODELS = [("bcdnet_tiny", None), ("bimlp_tiny", "paper"), ("bimlp_tiny", "released")]
TinyModel = Callable[[str, str | None], Path]


@pytest.fixture(scope="module")
def bundle(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("tensors") / "bundle"
    return compile_model(tiny_model("bcdnet_tiny", None), "x86-64-v3", path, batch=2)


@pytest.mark.parametrize(("model", "variant"), TINY_MODELS)
def test_every_sign_has_a_place(tiny_model: TinyModel, model: str, variant: str | None) -> None:
    """Breaks: validate leaves layers out, since it does not know where their bits are."""
    onnx = open_model(tiny_model(model, variant)).model
    signs = {
        node.output[0] for node in onnx.graph.node if node.domain == DOMAIN and node.op_type in ("Sign", "Ternary")
    }
    packed = pack_network(onnx, 1)
    for target in ("x86-64-v4-vpopcntdq", "arm64", "orin"):
        rows = json.loads(table_text(written_values(lower_packed(packed, get_target(target)).plan)))["tensors"]
        assert signs and signs <= {row["tensor"] for row in rows if row["kind"] == "words"}, target
        steps = [row["step"] for row in rows]
        assert steps == sorted(steps), "the first wrong row is not the first wrong layer"


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    channels=st.integers(1, 70),
    ternary=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_signs_become_words_and_back(shape: list[int], channels: int, ternary: bool, seed: int) -> None:
    """Breaks: the reference's bits are forced upon the wrong channels, or padding bits are not 0."""
    if ternary and len(shape) == 1:
        shape = [*shape, 1]
    onnx_shape = (shape[0], channels, *shape[1:]) if len(shape) == 3 else (*shape, channels)
    signs = np.random.default_rng(seed).choice([-1, 0, 1] if ternary else [-1, 1], onnx_shape).astype(np.int8)
    words = -(-channels // 32)
    memory = [*shape, words]
    if ternary:
        memory.insert(min(2, len(shape)), 2)
    entry = TensorEntry("v", "words", "l", 0, tuple(memory), channels, len(shape) == 3, ternary, ())
    packed = entry.from_onnx(signs)
    assert packed.shape == entry.shape and packed.dtype == np.uint32 and entry.onnx_shape == onnx_shape
    np.testing.assert_array_equal(entry.to_onnx(packed), signs)
    # The convention of bits.py, counted by hand: bit k of word j is channel 32 j + k.
    last = np.moveaxis(signs, 1, 3) if len(shape) == 3 else signs
    ones = (np.take(packed, 1, axis=min(2, len(memory) - 2)) if ternary else packed).reshape(-1, words)
    for row, bits in zip(ones, last.reshape(-1, channels), strict=True):
        assert sum(int(word) << (32 * j) for j, word in enumerate(row)) == sum(
            1 << k for k, s in enumerate(bits) if s > 0
        )


def test_a_zero_has_no_place_in_two_valued_words() -> None:
    """Breaks: a reference whose sign(0) is 0 is compared with a bundle that has no zero as if they agreed."""
    entry = TensorEntry("v", "words", "l", 0, (1, 1), 3, False, False, ())
    with pytest.raises(InputError):
        entry.from_onnx(np.array([[1, 0, -1]]))


def test_bytes_split_into_arrays_and_back(bundle: Bundle) -> None:
    """Breaks: values of one layer are taken for another's."""
    table = open_table(bundle)
    values = np.random.default_rng(0).integers(0, 256, (3, table.total_bytes), np.uint8)
    arrays = table.split(values)
    assert set(arrays) == {entry.key for entry in table.entries}
    assert all(
        array.shape[0] == 3 * entry.shape[0] for entry, array in zip(table.entries, arrays.values(), strict=True)
    )
    np.testing.assert_array_equal(table.join(arrays, batches=3), values)
    some = table.select([table.entries[1].key, table.entries[4].key])
    assert some.total_bytes == table.entries[1].bytes + table.entries[4].bytes and some.entries[0].offset == 0
    taps = table.taps(force=[table.entries[1].key])
    assert taps.shape == (len(table.entries), 9) and taps[:, 8].sum() == 1 and taps[1, 8] == 1


DAMAGE: list[Callable[[dict[str, Any]], object]] = [
    lambda t: t.update(format_version=2),
    lambda t: t.update(tensors=None),
    lambda t: t["tensors"][0].pop("step"),
    lambda t: t["tensors"][0].update(step=10_000),
    lambda t: t["tensors"][0].update(step=True),
    lambda t: t["tensors"][0].update(unknown=1),
    lambda t: t["tensors"][0].update(kind="bits"),
    lambda t: t["tensors"][0].update(tensor=3),
    lambda t: t["tensors"][0].update(shape=[-1, 4]),
    lambda t: t["tensors"][0].update(shape=[1 << 39, 1 << 39]),
    lambda t: t["tensors"][0].update(shape=[]),
    lambda t: t["tensors"][0].update(channels=1000),
    lambda t: t["tensors"][0].update(ternary=True),
    lambda t: t["tensors"][0].update(places=[]),
    lambda t: t["tensors"][0]["places"][0].update(space="weights"),
    lambda t: t["tensors"][0]["places"][0].update(offset=-64),
    lambda t: t["tensors"][0]["places"][0].update(every=0),
    lambda t: t["tensors"][0]["places"][0].update(blocks=3),
    lambda t: t["tensors"].append(t["tensors"][0]),
]


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
def test_damaged_tables_are_one_sentence(bundle: Bundle, damage: Callable[[dict[str, Any]], object]) -> None:
    """Breaks: a hostile bundle makes validate allocate terabytes, or crash with a traceback."""
    path = bundle.path / NAME
    content = path.read_text()
    table = json.loads(content)
    table["tensors"].sort(key=lambda row: row["kind"], reverse=True)  # words first
    damage(table)
    try:
        path.write_text(json.dumps(table))
        with pytest.raises(BundleError) as caught:
            open_table(bundle)
    finally:
        path.write_text(content)
    assert NAME in str(caught.value) and "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_bundles_of_before_say_what_to_do(bundle: Bundle, tmp_path: Path) -> None:
    """Breaks: an old bundle gets a KeyError, or does not open at all."""
    old = Bundle(
        bundle.path, {**bundle.manifest, "files": {k: v for k, v in bundle.manifest["files"].items() if k != NAME}}
    )
    with pytest.raises(BundleError, match="compile it again"):
        open_table(old)
    assert hashlib.sha256((bundle.path / NAME).read_bytes()).hexdigest() == bundle.manifest["files"][NAME]["sha256"]
