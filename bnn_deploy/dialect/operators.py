"""The binary operators as first-class Relax operators: they stay readable in the IR until ``lower_binary`` picks kernels.

Float level (what the importer emits; NCHW, values in {-1, 0, +1} carried as float32):
    bnn.sign(x, threshold) {zero}                         -> like x; with zero = 0 it has three values
    bnn.ternary(x)                                        -> like x
    bnn.conv2d(x, weight, scale, shift) {convolution}     -> scale[o] * dot + shift[o]
    bnn.tap_scaled_conv2d(x, weight, scale, shift) {…}    -> sum over taps scale[o, tap] * dot[tap] + shift[o]
    bnn.linear(x, weight, scale, shift) {in_features}     -> scale[o] * dot + shift[o]
Packed level (after ``pack``; channels last, 32 channels per uint32 word, bit k of word j is channel 32j+k; a three-valued
tensor is two planes within each row, plane 0 = nonzero, plane 1 = positive: an image is (N, H, 2, W, words), see ``plane_axis``):
    bnn.sign_pack(x, threshold) {zero}                    -> (…, ceil(C/32)) uint32; with zero = 0 as ternary_pack
    bnn.ternary_pack(x)                                   -> (N, H, 2, …, ceil(C/32)) uint32
    bnn.sign_pack_many(x, thresholds (P, C)) {zero, layers} -> P results of sign_pack(x, thresholds[p])
    bnn.ternary_pack_many(x, biases (P, C)) {layers}      -> P results of ternary_pack(x + biases[p])
    bnn.shift_words(x) {segments, block_rows}             -> words of other pixels, see ``passes.relax.gather_shifts``
    bnn.packed_conv2d / bnn.packed_tap_scaled_conv2d / bnn.packed_linear: as above on words, {ternary: 0|1}
    bnn.epilogue_conv2d(x, weight, scale, shift, …)       -> what follows a layer too, see ``passes.relax.fuse_epilogue``
``weight`` is always the ONNX packing: uint8 (O, ceil(K/8)), K in the order (kh, kw, c), least significant bit first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tvm import ir, relax
from tvm.ir import _ffi_api as ir_ffi

from bnn_deploy.bits import plane_axis
from bnn_deploy.targets.kernels.words import word_count


@dataclass(frozen=True)
class ConvolutionAttributes:
    """Geometry of a binary convolution; ``pads`` is (top, left, bottom, right), ``in_channels`` counts all groups.

    ``ternary`` is 1 where the packed input is two planes; ``channels_last`` is 1 once the layout pass has run.
    ``block_rows`` is not 0 where one call computes that many output rows of one image from the whole input.
    """

    kernel_shape: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    group: int
    in_channels: int
    ternary: int = 0
    channels_last: int = 0
    block_rows: int = 0

    @classmethod
    def of(cls, call: relax.Call) -> ConvolutionAttributes:
        """Read the attributes back from a Relax call."""
        found = {key: call.attrs[key] for key in cls.__dataclass_fields__}
        integers: dict[str, Any] = {k: tuple(map(int, v)) if k in _TUPLES else int(v) for k, v in found.items()}
        return cls(**integers)

    def spatial(self, height: int, width: int) -> tuple[int, int]:
        """Output height and width for an input of the given size."""
        (kh, kw), (sh, sw), (top, left, bottom, right) = self.kernel_shape, self.strides, self.pads
        return (height + top + bottom - kh) // sh + 1, (width + left + right - kw) // sw + 1


_TUPLES = ("kernel_shape", "strides", "pads")


def _tensor(shape: list[int], dtype: str) -> relax.TensorType:
    return relax.TensorType(shape, dtype)


def _shape(expression: relax.Expr) -> list[int]:
    return _extents(expression.ty)


def _extents(ty: relax.TensorType) -> list[int]:
    return [int(extent) for extent in ty.shape.values]


def _infer_same(call: relax.Call, _context: object) -> relax.TensorType:
    return _tensor(_shape(call.args[0]), "float32")


def _infer_conv2d(call: relax.Call, _context: object) -> relax.TensorType:
    attributes = ConvolutionAttributes.of(call)
    out_channels = _shape(call.args[1])[0]
    if not attributes.channels_last:
        n, _, h, w = _shape(call.args[0])
        return _tensor([n, out_channels, *attributes.spatial(h, w)], "float32")
    n, h, *_, w, _ = _shape(call.args[0])
    rows, columns = attributes.spatial(h, w)
    if attributes.block_rows:
        n, rows = 1, attributes.block_rows
    return _tensor([n, rows, columns, out_channels], "float32")


def _infer_linear(call: relax.Call, _context: object) -> relax.TensorType:
    leading = _shape(call.args[0])[:-1]
    if int(call.attrs["ternary"]):
        del leading[plane_axis(len(leading))]
    return _tensor([*leading, _shape(call.args[1])[0]], "float32")


def is_three_valued(call: relax.Call) -> bool:
    """Whether ``bnn.sign``, ``bnn.ternary`` or one of their packs has three values, so that its words are two planes."""
    return "ternary" in call.op.name or int(call.attrs["zero"]) == 0


def _infer_sign_pack(call: relax.Call, context: object) -> relax.TensorType:
    if is_three_valued(call):
        return _infer_ternary_pack(call, context)
    *leading, channels = _shape(call.args[0])
    return _tensor([*leading, word_count(channels)], "uint32")


def _infer_ternary_pack(call: relax.Call, _context: object) -> relax.TensorType:
    *leading, channels = _shape(call.args[0])
    axis = plane_axis(len(leading) + 1)
    return _tensor([*leading[:axis], 2, *leading[axis:], word_count(channels)], "uint32")


def _infer_many(infer: Callable[[relax.Call, object], relax.TensorType]) -> Callable[..., relax.TupleType]:
    return lambda call, context: relax.TupleType([infer(call, context)] * _shape(call.args[1])[0])


def _infer_shift_words(call: relax.Call, _context: object) -> relax.TensorType:
    n, h, w, _ = _shape(call.args[0])
    words = sum(int(segment[1]) for segment in call.attrs["segments"])
    rows = int(call.attrs["block_rows"])
    return _tensor([1, rows, w, words] if rows else [n, h, w, words], "uint32")


def _infer_epilogue_conv2d(call: relax.Call, context: object) -> relax.TensorType | relax.TupleType:
    out = _infer_conv2d(call, context)
    planes, (*pixels, channels) = int(call.attrs["planes"]), _extents(out)
    if not planes:
        return out
    words = _tensor([*pixels, word_count(channels)], "uint32")
    return relax.TupleType([out] * int(call.attrs["stores"]) + [words] * planes)


_OPERATORS = {
    "bnn.sign": _infer_same,
    "bnn.ternary": _infer_same,
    "bnn.conv2d": _infer_conv2d,
    "bnn.tap_scaled_conv2d": _infer_conv2d,
    "bnn.linear": _infer_linear,
    "bnn.sign_pack": _infer_sign_pack,
    "bnn.ternary_pack": _infer_ternary_pack,
    "bnn.sign_pack_many": _infer_many(_infer_sign_pack),
    "bnn.ternary_pack_many": _infer_many(_infer_ternary_pack),
    "bnn.shift_words": _infer_shift_words,
    "bnn.packed_conv2d": _infer_conv2d,
    "bnn.packed_tap_scaled_conv2d": _infer_conv2d,
    "bnn.packed_linear": _infer_linear,
    "bnn.epilogue_conv2d": _infer_epilogue_conv2d,
}


def _register() -> None:
    registered = set(ir.Op.list_op_names())
    for name, infer in _OPERATORS.items():
        if name not in registered:
            ir_ffi.RegisterOp(name, "bnn-deploy")
        ir.register_op_attr(name, "FInferType", infer)
        ir.register_op_attr(name, "FPurity", True)


_register()


def call(
    name: str, arguments: list[relax.Expr], attributes: ConvolutionAttributes | Mapping[str, int | str] | None = None
) -> relax.Call:
    """A call of one of the operators above."""
    values = asdict(attributes) if isinstance(attributes, ConvolutionAttributes) else dict(attributes or {})
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return relax.Call(ir.Op.get(name), arguments, attrs=ir.make_node("ir.DictAttrs", **values))
