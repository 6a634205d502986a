"""What a golden file says of itself: JSON in its array ``header``.

``{"format": "bnn-deploy golden file", "version": 1, "onnx_file", "onnx_sha256", "reference", "data", "metadata": {key: text},
"image_shape": [...], "images", "classes", "labelled", "output", "output_margin", "notes": [...], "signs": [{"layer", "tensor",
"fed_by": [...], "shape": [...], "ternary", "scale", "margin", "histograms": [[...]], "on_threshold", "near"}]}``
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import prod

from bnn_deploy.checked_fields import (
    Fields,
    Unfit,
    flag,
    list_of,
    number,
    object_of,
    parse_json,
    shown,
    text,
    whole,
)

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
        entries = parse_json(content)
    except ValueError as error:
        raise ValueError("its header is not JSON") from error
    if not isinstance(entries, dict) or entries.get("format") != FORMAT:
        raise ValueError("its header is that of something else")
    if entries.get("version") != VERSION:
        raise ValueError(
            f"it has version {shown(entries.get('version'))} of the format, but this bnn-deploy reads version {VERSION}"
        )
    fields = Fields(entries, lambda problem: ValueError(f"in its header, {problem}"))
    images = fields.take("images", _count)
    header = GoldenHeader(
        onnx_file=fields.take("onnx_file", text),
        onnx_sha256=fields.take("onnx_sha256", text),
        reference=fields.take("reference", text),
        data=fields.take("data", text),
        metadata=fields.take("metadata", object_of(text)),
        image_shape=fields.take("image_shape", _shape),
        images=images,
        classes=fields.take("classes", _count),
        labelled=fields.take("labelled", flag),
        output=fields.take("output", text),
        output_margin=fields.take("output_margin", _real),
        notes=fields.take("notes", list_of(text)),
        signs=tuple(_sign(entry, images, classes_of_distance) for entry in fields.objects("signs")),
    )
    if not header.images or not header.classes or not header.image_shape or not prod(header.image_shape):
        raise ValueError("it holds no images or no logits")
    if len({sign.tensor for sign in header.signs}) < len(header.signs):
        raise ValueError("two layers have one name")
    return header


def _sign(fields: Fields, images: int, classes_of_distance: int) -> GoldenSign:
    histogram = list_of(_count, least=classes_of_distance, most=classes_of_distance)
    sign = GoldenSign(
        layer=fields.take("layer", text),
        tensor=fields.take("tensor", text),
        fed_by=fields.take("fed_by", list_of(text)),
        shape=fields.take("shape", _shape),
        ternary=fields.take("ternary", flag),
        scale=fields.take("scale", _real),
        margin=fields.take("margin", _real),
        histograms=fields.take("histograms", list_of(histogram)),
        on_threshold=fields.take("on_threshold", _count),
        near=fields.take("near", _count),
    )
    counted = sum(sum(row) for row in sign.histograms)
    divisible = bool(sign.shape) and images > 0 and sign.shape[0] % images == 0
    if len(sign.histograms) != (images if divisible else 1) or counted != sign.size:
        raise ValueError(f"the histogram of {shown(sign.layer)} does not count its {sign.size} values")
    if sign.on_threshold + sign.near > sign.size:
        raise ValueError(f"{shown(sign.layer)} has more values near its threshold than values")
    return sign


_count = whole(largest=_LARGEST - 1)
_real = number(largest=2.0**129)


def _shape(value: object) -> tuple[int, ...]:
    shape = list_of(_count, most=16)(value)
    if prod(shape) >= _LARGEST:
        raise Unfit(value, f"the shape of fewer than {_LARGEST} values")
    return shape
