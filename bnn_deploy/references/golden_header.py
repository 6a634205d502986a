"""What a golden file says of itself: JSON in its array ``header``.

``{"format": "bnn-deploy golden file", "version": 1, "onnx_file", "onnx_sha256", "reference", "data", "metadata": {key: text},
"image_shape": [...], "images", "classes", "labelled", "output", "output_margin", "notes": [...], "signs": [{"layer", "tensor",
"fed_by": [...], "shape": [...], "ternary", "scale", "margin", "histograms": [[...]], "on_threshold", "near"}]}``
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite, prod
from typing import Any

FORMAT = "bnn-deploy golden file"
VERSION = 1
_LARGEST = 2**40


@dataclass(frozen=True)
class GoldenSign:
    """One binarisation; attributes as in ``SignValues``, and how many positions are on the threshold and near it."""

    layer: str
    tensor: str
    fed_by: tuple[str, ...]
    shape: tuple[int, ...]
    ternary: bool
    scale: float
    margin: float
    histograms: tuple[tuple[int, ...], ...]
    on_threshold: int
    near: int

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass(frozen=True)
class GoldenHeader:
    """Everything but arrays.

    Attributes:
        onnx_file: name of the recorded ONNX file, without its folder.
        onnx_sha256: of its bytes.
        reference: what computed the values: "onnxruntime" or "torch".
        data: where the images come from, for reports.
        metadata: of the ONNX file: its model, preprocessing, ...
        image_shape: of one image.
        images: how many.
        classes: logits of each.
        labelled: there is a label for each.
        output: name of the logits in the graph.
        output_margin: rounding margin of the logits, relative to the largest.
        notes: what the reference said of its values.
        signs: in the order of the graph.
    """

    onnx_file: str
    onnx_sha256: str
    reference: str
    data: str
    metadata: dict[str, str]
    image_shape: tuple[int, ...]
    images: int
    classes: int
    labelled: bool
    output: str
    output_margin: float
    notes: tuple[str, ...]
    signs: tuple[GoldenSign, ...]

    def to_json(self) -> bytes:
        """As it stands in the file."""
        entries = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return json.dumps(entries, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse_header(content: bytes, classes_of_distance: int) -> GoldenHeader:
    """Read ``to_json``; ``classes_of_distance`` is the length of a histogram.

    Raises:
        ValueError: says what is wrong.
    """
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError("its header is not JSON") from error
    if not isinstance(entries, dict) or entries.get("format") != FORMAT:
        raise ValueError("its header is that of something else")
    if entries.get("version") != VERSION:
        raise ValueError(
            f"it has version {str(entries.get('version'))[:20]} of the format, but this bnn-deploy reads version {VERSION}"
        )
    reader = _Reader(entries)
    count = reader.number("images")
    header = GoldenHeader(
        onnx_file=reader.text("onnx_file"),
        onnx_sha256=reader.text("onnx_sha256"),
        reference=reader.text("reference"),
        data=reader.text("data"),
        metadata=reader.texts_by_name("metadata"),
        image_shape=reader.numbers("image_shape"),
        images=count,
        classes=reader.number("classes"),
        labelled=reader.flag("labelled"),
        output=reader.text("output"),
        output_margin=reader.real("output_margin"),
        notes=reader.texts("notes"),
        signs=tuple(_sign(_Reader(entry), count, classes_of_distance) for entry in reader.objects("signs")),
    )
    if not header.images or not header.classes or not header.image_shape or not prod(header.image_shape):
        raise ValueError("it holds no images or no logits")
    if len({sign.tensor for sign in header.signs}) < len(header.signs):
        raise ValueError("two layers have one name")
    return header


def _sign(reader: _Reader, images: int, classes_of_distance: int) -> GoldenSign:
    sign = GoldenSign(
        layer=reader.text("layer"),
        tensor=reader.text("tensor"),
        fed_by=reader.texts("fed_by"),
        shape=reader.numbers("shape"),
        ternary=reader.flag("ternary"),
        scale=reader.real("scale"),
        margin=reader.real("margin"),
        histograms=tuple(reader.rows("histograms", classes_of_distance)),
        on_threshold=reader.number("on_threshold"),
        near=reader.number("near"),
    )
    counted = sum(sum(row) for row in sign.histograms)
    divisible = bool(sign.shape) and sign.shape[0] % images == 0
    if len(sign.histograms) != (images if divisible else 1) or counted != sign.size:
        raise ValueError(f"the histogram of {sign.layer[:80]!r} does not count its {sign.size} values")
    if sign.on_threshold + sign.near > sign.size:
        raise ValueError(f"{sign.layer[:80]!r} has more values near its threshold than values")
    return sign


class _Reader:
    """The entries of a JSON object, each of the type that it must have."""

    def __init__(self, entries: Any) -> None:
        if not isinstance(entries, dict):
            raise ValueError("an entry of its header is no object")
        self._entries = entries

    def _get(self, name: str, fits: Callable[[Any], bool]) -> Any:
        value = self._entries.get(name)
        if not fits(value):
            raise ValueError(f"the entry {name!r} of its header is missing or makes no sense")
        return value

    def text(self, name: str) -> str:
        return str(self._get(name, _is_text))

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self._get(name, lambda value: isinstance(value, list) and all(map(_is_text, value))))

    def texts_by_name(self, name: str) -> dict[str, str]:
        return dict(self._get(name, lambda value: isinstance(value, dict) and all(map(_is_text, value.values()))))

    def flag(self, name: str) -> bool:
        return bool(self._get(name, lambda value: isinstance(value, bool)))

    def number(self, name: str) -> int:
        return int(self._get(name, _is_count))

    def numbers(self, name: str) -> tuple[int, ...]:
        return tuple(self._get(name, _are_sizes))

    def real(self, name: str) -> float:
        return float(self._get(name, _is_real))

    def objects(self, name: str) -> list[Any]:
        return list(self._get(name, lambda value: isinstance(value, list)))

    def rows(self, name: str, length: int) -> list[tuple[int, ...]]:
        rows = self.objects(name)
        if not all(isinstance(row, list) and len(row) == length and all(map(_is_count, row)) for row in rows):
            raise ValueError(f"the entry {name!r} of its header is missing or makes no sense")
        return [tuple(row) for row in rows]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 16 and all(map(_is_count, value)) and prod(value) < _LARGEST


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**129 and isfinite(value)
