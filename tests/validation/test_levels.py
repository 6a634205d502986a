"""Levels 1 and 2 on values that are chosen here: which row fails, what it counts, and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from bnn_deploy.bundle.tensor_table import Key, Place, TensorEntry, TensorTable
from bnn_deploy.references.layer_values import HISTOGRAM_EDGES, LayerValues, SignValues
from bnn_deploy.validation.kernel_level import compare_kernels
from bnn_deploy.validation.layer_level import compare_layers
from bnn_deploy.validation.report import LevelResult, TensorResult

BATCH, CHANNELS, SIDE = 2, 40, 3
PLACES = (Place("arena", 0, 0, 1, 1, 1),)
OUTPUT = "y"


def words(tensor: str, step: int, ternary: bool = False) -> TensorEntry:
    shape = (BATCH, SIDE, 2, SIDE, 2) if ternary else (BATCH, SIDE, SIDE, 2)
    return TensorEntry(tensor, "words", f"layer.{tensor}", step, shape, CHANNELS, True, ternary, PLACES)


def floats(tensor: str, step: int, shape: tuple[int, ...] = (BATCH, SIDE, SIDE, CHANNELS)) -> TensorEntry:
    return TensorEntry(tensor, "floats", f"layer.{tensor}", step, shape, 0, len(shape) == 4, False, PLACES)


TABLE = TensorTable(
    (words("a", 0), floats("b", 1), words("c", 2, ternary=True), words("d", 3), floats(OUTPUT, 4, (BATCH, 5)))
)
IMAGES = np.zeros((BATCH, 1, 2, 2), np.float32)


def values(seed: int = 0) -> dict[str, np.ndarray]:
    """The right values, in the layout of ONNX."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for entry in TABLE.entries:
        if entry.kind == "floats":
            found[entry.tensor] = rng.standard_normal(entry.onnx_shape, np.float32)
        elif entry.ternary:
            found[entry.tensor] = rng.integers(-1, 2, entry.onnx_shape, np.int8)
        else:
            found[entry.tensor] = 2 * rng.integers(0, 2, entry.onnx_shape, np.int8) - 1
    return found


@dataclass(frozen=True)
class Value:
    tensor: str
    kind: str
    array: np.ndarray


@dataclass
class Network:
    """Computes the same values whatever it is given, and notes what was forced."""

    computed: dict[str, np.ndarray]
    forced: list[set[Key]] = field(default_factory=list)

    @property
    def shapes(self) -> Mapping[Key, tuple[int, ...]]:
        return {entry.key: entry.shape for entry in TABLE.entries}

    def readers(self, keys: Collection[Key]) -> Mapping[Key, Collection[Key]]:
        # "d" was read by a kernel before the one that stores it.
        return {key: [("a", "words")] if key == ("d", "words") else [] for key in keys}

    def edge_values(self, tensor: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.full(shape, 0.25, np.float32)

    def values(self, images: np.ndarray, forced: Mapping[Key, np.ndarray], steps: Mapping[Key, int]) -> Iterator[Value]:
        self.forced.append(set(forced))
        for entry in TABLE.entries:
            if entry.tensor in self.computed:
                yield Value(entry.tensor, entry.kind, entry.from_onnx(self.computed[entry.tensor]))


@dataclass
class Device:
    """Gives ``computed``, in which ``damage`` may change the bytes that the device computed, in the layout of memory."""

    computed: dict[str, np.ndarray]
    damage: Callable[[dict[Key, np.ndarray]], None] = lambda arrays: None
    given: list[np.ndarray] = field(default_factory=list)

    def run_tapped(
        self, array: np.ndarray, taps: np.ndarray, total_bytes: int, forced: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        assert forced is not None and forced.shape == (1, total_bytes) and taps[:, 8].all()
        self.given.append(forced)
        table = TensorTable(tuple(entry for entry in TABLE.entries if entry.step in set(taps[:, 1])))
        assert table.total_bytes == total_bytes
        arrays = {entry.key: entry.from_onnx(self.computed[entry.tensor]).copy() for entry in table.entries}
        self.damage(arrays)
        outputs = arrays.get((OUTPUT, "floats"), self.computed[OUTPUT])
        return outputs, table.join(arrays)


def sign(tensor: str, signs: np.ndarray, near: Mapping[int, float] | None = None) -> SignValues:
    """With a scale of 2 and a margin of 2**-10 of it."""
    near = near or {}
    return SignValues(
        layer=f"layer.{tensor}",
        tensor=tensor,
        fed_by=("conv", "bias"),
        values=signs,
        near_index=np.array(sorted(near), np.int64),
        near_distance=np.array([near[index] for index in sorted(near)], np.float32),
        scale=2.0,
        margin=2.0**-10,
        histograms=np.array([[0] * (len(HISTOGRAM_EDGES) - 1) + [signs.size]]),
        ternary=False,
    )


@dataclass
class Reference:
    """The right values, with some of the signs near their threshold."""

    computed: dict[str, np.ndarray]
    near: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    name: str = "reference"
    input_shape: tuple[int, ...] = IMAGES.shape[1:]

    def capture(self, images: np.ndarray, floats: Sequence[str] = ()) -> LayerValues:
        kinds = {entry.tensor: entry.kind for entry in TABLE.entries}
        signs = {
            tensor: sign(tensor, array, self.near.get(tensor))
            for tensor, array in self.computed.items()
            if kinds.get(tensor, "words") == "words"
        }
        known = {tensor: array for tensor, array in self.computed.items() if kinds.get(tensor) == "floats"}
        return LayerValues(signs, known, dict.fromkeys(known, 2.0**-20), self.computed[OUTPUT])


def kernels(damage: Callable[[dict[Key, np.ndarray]], None] = lambda arrays: None) -> LevelResult:
    return compare_kernels(Device(values(), damage), Network(values()), TABLE, [IMAGES], patterns=("data",)).result


def layers(
    damage: Callable[[dict[Key, np.ndarray]], None] = lambda arrays: None,
    near: Mapping[str, Mapping[int, float]] | None = None,
) -> LevelResult:
    session, reference = Device(values(), damage), Reference(values(), near or {})
    return compare_layers(session, reference, TABLE, [IMAGES], output=OUTPUT).result


def only_failure(result: LevelResult) -> TensorResult:
    failures = [row for row in result.rows if not row.passed]
    assert not result.passed and len(failures) == 1 and result.first_failure is failures[0]
    return failures[0]


def change_sign(tensor: str, place: tuple[int, int, int, int]) -> Callable[[dict[Key, np.ndarray]], None]:
    """Flips one sign, at a place in the layout of ONNX."""
    entry = next(entry for entry in TABLE.entries if entry.tensor == tensor)

    def damage(arrays: dict[Key, np.ndarray]) -> None:
        if entry.key in arrays:
            signs = entry.to_onnx(arrays[entry.key]).copy()
            signs[place] = -signs[place] or 1
            arrays[entry.key] = entry.from_onnx(signs)

    return damage


@pytest.mark.parametrize("level", [kernels, layers])
def test_right_values_pass(level: Callable[[], LevelResult]) -> None:
    """Breaks if a level finds differences where there are none, or leaves a value out."""
    result = level()
    assert result.passed and result.first_failure is None and result.images == BATCH
    assert [row.tensor for row in result.rows] == ["a", "b", "c", "d", OUTPUT]
    assert [row.compared for row in result.rows] == [720, 720, 720, 720, 10]
    assert [row.kind for row in result.rows] == ["bits", "float", "bits", "bits", "float"]


@pytest.mark.parametrize("level", [kernels, layers])
@pytest.mark.parametrize("tensor", ["a", "c", "d"])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 39, 2, 1)])
def test_one_wrong_bit(level: Callable[..., LevelResult], tensor: str, place: tuple[int, int, int, int]) -> None:
    """Breaks if one wrong bit passes, another row is blamed, or its place or values are shown wrongly."""
    right = int(values()[tensor][place])
    row = only_failure(level(change_sign(tensor, place)))
    assert (row.layer, row.differing, row.within_margin) == (f"layer.{tensor}", 1, 0)
    assert row.example is not None
    assert (row.example.image, row.example.position) == (place[0], place[1:])
    assert (row.example.expected, row.example.found, row.example.distance) == (right, -right or 1, None)


def test_wrong_padding_bit() -> None:
    """Breaks if a kernel may leave rubbish behind the last channel, which others count as signs."""

    def damage(arrays: dict[Key, np.ndarray]) -> None:
        arrays["a", "words"][1, 2, 0, 1] |= np.uint32(1 << 31)

    row = only_failure(kernels(damage))
    assert row.differing == 1 and row.example is not None
    assert (row.example.image, row.example.position, row.example.found) == (1, (63, 2, 0), 1.0)


def test_one_unit_in_the_last_place() -> None:
    """Breaks if level 1 lets a float differ by its last bit, or level 2 does not."""

    def damage(arrays: dict[Key, np.ndarray]) -> None:
        array = arrays["b", "floats"]
        array[1, 2, 0, 7] = np.nextafter(array[1, 2, 0, 7], np.float32(np.inf))

    row = only_failure(kernels(damage))
    assert row.layer == "layer.b" and row.differing == 1 and row.example is not None
    assert (row.example.image, row.example.position) == (1, (7, 2, 0))
    right = values()["b"][1, 7, 2, 0]
    assert row.max_error == float(np.nextafter(right, np.float32(np.inf))) - float(right)
    assert layers(damage).passed


def test_one_wrong_channel() -> None:
    """Breaks if a wrong scale of one channel passes, or the counts of its values are wrong."""

    def damage(arrays: dict[Key, np.ndarray]) -> None:
        arrays["b", "floats"][..., 5] *= np.float32(1.001)

    for level in (kernels, layers):
        row = only_failure(level(damage))
        assert row.layer == "layer.b" and row.differing == BATCH * SIDE * SIDE
        assert row.example is not None and row.example.position == (5, 0, 0)


def test_zeros_and_nan_are_told_apart() -> None:
    """Breaks if level 1 takes -0.0 for 0.0, one NaN for another number, or different NaN for a difference."""
    right = {**values()}
    right["b"] = right["b"].copy()
    right["b"][0, 0, 0, 0], right["b"][0, 1, 0, 0] = 0.0, np.nan

    def run(damage: Callable[[dict[Key, np.ndarray]], None]) -> LevelResult:
        return compare_kernels(Device(right, damage), Network(right), TABLE, [IMAGES], patterns=("data",)).result

    def other_nan(arrays: dict[Key, np.ndarray]) -> None:
        arrays["b", "floats"].view(np.uint32)[0, 0, 0, 1] = 0xFFC12345

    def minus_zero(arrays: dict[Key, np.ndarray]) -> None:
        arrays["b", "floats"][0, 0, 0, 0] = -0.0

    def number(arrays: dict[Key, np.ndarray]) -> None:
        arrays["b", "floats"][0, 0, 0, 1] = 1.0

    assert run(other_nan).passed
    assert only_failure(run(minus_zero)).differing == 1
    assert only_failure(run(number)).max_error == np.inf


def test_within_the_margin() -> None:
    """Breaks if rounding fails a layer, what is not rounding passes, or either is counted wrongly."""
    scale, margin = 2.0, 2.0**-10
    # Flat positions of (image 0, channel 0, row 0, columns 0 and 1): one at the margin, one just beyond.
    near = {"a": {0: scale * margin, 1: scale * margin * 1.001}}
    explained = layers(change_sign("a", (0, 0, 0, 0)), near)
    assert explained.passed
    row = explained.rows[0]
    assert (row.differing, row.within_margin, row.near_threshold, row.example) == (1, 1, 1, None)
    assert row.margin == scale * margin and row.histogram is not None and sum(row.histogram) == row.compared
    row = only_failure(layers(change_sign("a", (0, 0, 0, 1)), near))
    assert (row.differing, row.within_margin, row.fed_by) == (1, 0, ("conv", "bias"))
    assert row.example is not None and row.example.distance == pytest.approx(scale * margin * 1.001)


def test_logits_of_given_values() -> None:
    """Breaks if level 2 does not look at the logits, or takes what was forced for them."""

    def damage(arrays: dict[Key, np.ndarray]) -> None:
        arrays[OUTPUT, "floats"][1, 4] += 1

    row = only_failure(layers(damage))
    assert row.tensor == OUTPUT and row.example is not None
    assert (row.example.image, row.example.position, row.max_error) == (1, (4,), pytest.approx(1))


def test_what_was_left_out_is_said() -> None:
    """Breaks if values that only one side has go unmentioned, or a level that compared nothing passes."""
    some = {tensor: array for tensor, array in values().items() if tensor != "a"}
    outcome = compare_kernels(Device(values()), Network(some), TABLE, [IMAGES], patterns=("data",))
    assert outcome.result.passed and len(outcome.result.rows) == 4 and "left out 1 values" in outcome.warnings[0]
    nothing = compare_kernels(Device(values()), Network({}), TABLE.select([]), [IMAGES], patterns=("data",))
    assert not nothing.result.passed and "compared nothing" in nothing.warnings[0]
    strange = {**some, "elsewhere": values()["a"]}
    outcome = compare_layers(Device(values()), Reference(strange), TABLE, [IMAGES], output=OUTPUT)
    assert outcome.result.passed and len(outcome.warnings) == 2
    assert "1 of 3 binarisations" in outcome.warnings[0] and "layer.elsewhere" in outcome.warnings[0]
    assert "1 packed values of the bundle" in outcome.warnings[1] and "layer.a" in outcome.warnings[1]
    only = Reference({OUTPUT: values()[OUTPUT]})
    nothing = compare_layers(Device(values()), only, TABLE.select([("a", "words")]), [IMAGES], output=OUTPUT)
    assert not nothing.result.passed and "compared nothing but the logits" in nothing.warnings[0]


def test_patterns() -> None:
    """Breaks if a pattern forces the wrong values, the device is not given them, or values are forced that nobody reads."""
    network, session = Network(values()), Device(values())
    outcome = compare_kernels(session, network, TABLE, [IMAGES])
    assert outcome.result.passed and outcome.result.patterns == ("data", "random", "plus", "minus")
    signs = {("a", "words"), ("c", "words")}
    assert network.forced == [set(), signs, *[signs | {("b", "floats"), (OUTPUT, "floats")}] * 2]
    data, random, plus, minus = (TABLE.split(given) for given in session.given)
    for entry in TABLE.entries:
        np.testing.assert_array_equal(data[entry.key], entry.from_onnx(values()[entry.tensor]))
    tossed = TABLE.entries[0].to_onnx(random["a", "words"])
    assert set(np.unique(tossed)) == {-1, 1} and 0.4 < (tossed > 0).mean() < 0.6
    assert set(np.unique(TABLE.entries[2].to_onnx(random["c", "words"]))) == {-1, 0, 1}
    np.testing.assert_array_equal(random["d", "words"], data["d", "words"])
    assert (TABLE.entries[0].to_onnx(plus["a", "words"]) == 1).all()
    assert (TABLE.entries[0].to_onnx(minus["a", "words"]) == -1).all()
    assert (plus["b", "floats"] == 0.25).all() and (minus["b", "floats"] == 0.25).all()


def test_examples_of_rows_of_an_image() -> None:
    """Breaks if the image of a value whose first axis holds several rows of each image is shown wrongly."""
    entry = replace(floats("b", 1), shape=(BATCH * 4, 3), channels_last=False)
    table = TensorTable((entry,))
    right = np.zeros(entry.shape, np.float32)
    found = right.copy()
    found[6, 1] = 1

    class Rows(Network):
        def values(self, *arguments: object) -> Iterator[Value]:
            yield Value("b", "floats", right)

    class Observed(Device):
        def run_tapped(self, *arguments: object) -> tuple[np.ndarray, np.ndarray]:
            return right, table.join({("b", "floats"): found})

    outcome = compare_kernels(Observed({}), Rows({}), table, [IMAGES, IMAGES], patterns=("data",))
    example = only_failure(outcome.result).example
    assert example is not None and (example.image, example.position) == (1, (2, 1))
