"""Replace packed binary operators by calls of the target's kernels.

Before::

    p = bnn.sign_pack(x, t);                     y = bnn.packed_conv2d(p, w, scale, shift)
After::

    p = call_tir(sign_pack_…, (x, t));           y = call_tir(binary_conv2d_…, (p, w', scale, shift)) {layer, kind, binary_macs}

``targets.kernels`` chooses each kernel by shape and target; the weights are laid out here, at compile time, as that kernel
reads them. Kernels that can (``takes_shifts`` of the kernel table) read the words before ``bnn.shift_words`` from where it
would take them; shifted words that nothing reads any more are not computed. Where: after ``pack``; the only pass that asks
which target it compiles for before TIR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import tvm
from tvm import ir, relax, tirx

from bnn_deploy.dialect.operators import ConvolutionAttributes, is_three_valued, plane_axis
from bnn_deploy.errors import CompileError
from bnn_deploy.passes.relax.expressions import (
    constant_array,
    is_constant,
    layer_identifier,
    operator_name,
    static_shape,
)
from bnn_deploy.passes.relax.rewriter import DataflowRewriter
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.epilogue import STEPS, Epilogue, ImageOperand
from bnn_deploy.targets.kernels.specification import (
    ConvolutionSpecification,
    MultiSignPackSpecification,
    MultiTernaryPackSpecification,
    ShiftWordsSpecification,
    SignPackSpecification,
    Specification,
    TernaryPackSpecification,
    word_count,
)
from bnn_deploy.targets.kernels.table import select_kernel, takes_shifts


def lower_binary(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Run the pass for ``target``; see the module's docstring."""
    return _LowerBinary(module, target).run()


class _LowerBinary(DataflowRewriter):
    def __init__(self, module: tvm.IRModule, target: Target) -> None:
        super().__init__(module)
        self.target = target
        self.kernels: dict[Specification, tuple[ir.GlobalVar, object]] = {}

    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        name = operator_name(value)
        if name in ("bnn.sign_pack", "bnn.ternary_pack"):
            return self._pack(variable, value)
        if name in ("bnn.sign_pack_many", "bnn.ternary_pack_many"):
            return self._pack_many(variable, value)
        if name == "bnn.shift_words":
            return self._shift_words(variable, value)
        if name in ("bnn.packed_conv2d", "bnn.packed_tap_scaled_conv2d"):
            return self._convolution(variable, value, convolution_specification(value))
        if name == "bnn.epilogue_conv2d":
            return self._epilogue_convolution(variable, value)
        if name == "bnn.packed_linear":
            return self._convolution(variable, value, self._rows(value))
        if name in ("bnn.sign", "bnn.ternary"):
            return self._float_sign(value)
        return None

    def _float_sign(self, value: relax.Call) -> relax.Expr:
        """A sign whose words would be cut by what follows (see ``pack``): it stays float."""
        x = self.lookup(value.args[0])
        one, zero, minus = (relax.const(np.float32(number)) for number in (1, 0, -1))
        if is_three_valued(value):
            half = np.float32(0.5)
            bounds = (
                [relax.const(half), relax.const(-half)] if len(value.args) == 1 else [self.lookup(value.args[1])] * 2
            )
            negative = self.emit(relax.op.less(x, bounds[1]))
            lower = self.emit(relax.op.where(negative, minus, zero))
            positive = self.emit(relax.op.greater(x, bounds[0]))
            return self.emit(relax.op.where(positive, one, lower))
        compare = relax.op.greater if int(value.attrs["zero"]) < 0 else relax.op.greater_equal
        positive = self.emit(compare(x, self.lookup(value.args[1])))
        return self.emit(relax.op.where(positive, one, minus))

    def _pack(self, variable: relax.Var, value: relax.Call) -> relax.Expr:
        shape = static_shape(value.args[0])
        image = shape if len(shape) == 4 else (*_rows_and_columns(shape[:-1]), shape[-1])
        arguments = [self._reshaped(self.lookup(value.args[0]), image)]
        if operator_name(value) == "bnn.ternary_pack":
            specification: Specification = TernaryPackSpecification(*image)
        else:
            threshold = self._threshold_shape(variable, static_shape(value.args[1]), len(shape))
            arguments.append(self._reshaped(self.lookup(value.args[1]), threshold))
            specification = SignPackSpecification(*image, threshold_shape=threshold, zero=int(value.attrs["zero"]))
        words = self._call(variable, specification, arguments, "pack", 0)
        return self._reshaped(words, static_shape(variable))

    def _pack_many(self, variable: relax.Var, value: relax.Call) -> relax.Expr:
        x, vectors = value.args
        planes = static_shape(vectors)[0]
        if operator_name(value) == "bnn.ternary_pack_many":
            specification: Specification = MultiTernaryPackSpecification(*static_shape(x), planes)
        else:
            specification = MultiSignPackSpecification(*static_shape(x), planes, int(value.attrs["zero"]))
        layers = str(value.attrs["layers"])
        result = self._call(variable, specification, [self.lookup(x), vectors], "pack", 0, planes, layers)
        # call_tir makes no tuple of one tensor.
        return result if planes > 1 else self.emit(relax.Tuple([result]))

    def _shift_words(self, variable: relax.Var, value: relax.Call) -> relax.Expr:
        rows = int(value.attrs["block_rows"])
        specification = ShiftWordsSpecification(*static_shape(value.args[0]), _segments(value), rows)
        arguments = [self.lookup(value.args[0])] + [tirx.IntImm("int32", 0)] * bool(rows)
        return self._call(variable, specification, arguments, "pack", 0)

    def _threshold_shape(self, variable: relax.Var, shape: tuple[int, ...], rank: int) -> tuple[int, int, int, int]:
        aligned = (1,) * (rank - len(shape)) + shape
        if any(extent != 1 for extent in aligned[1:-1]) or (rank != 4 and aligned[0] != 1):
            raise CompileError(
                f"Layer '{self._layer(variable)}' compares with a threshold of shape {shape}, which varies over space; "
                "a threshold may vary over channels and images only."
            )
        return (aligned[0], 1, 1, aligned[-1])

    def _rows(self, value: relax.Call) -> ConvolutionSpecification:
        ternary = bool(int(value.attrs["ternary"]))
        leading = list(static_shape(value.args[0])[:-1])
        if ternary:
            del leading[plane_axis(len(leading))]
        batch, height, width = _rows_and_columns(leading)
        return ConvolutionSpecification(
            batch=batch,
            height=height,
            width=width,
            in_channels=int(value.attrs["in_features"]),
            out_channels=static_shape(value.args[1])[0],
            ternary=ternary,
        )

    def _convolution(
        self, variable: relax.Var, value: relax.Call, specification: ConvolutionSpecification
    ) -> relax.Expr:
        words, weight, scale, shift = value.args
        words, specification = self._unshifted(words, specification)
        if not all(is_constant(argument) for argument in (weight, scale, shift)):
            raise CompileError(
                f"Layer '{self._layer(variable)}' computes its packed weights or scale at run time; they must be constants."
            )
        _, kernel = self._kernel(specification)
        scales = constant_array(scale)
        arguments = [
            self._reshaped(self.lookup(words), specification.input_shape),
            relax.const(kernel.pack_weights(constant_array(weight))),
            relax.const(np.ascontiguousarray(scales.T) if specification.tap_scaled else scales),
            shift,
        ]
        if specification.block_rows:
            # Stands for the index of the block; the plan passes it.
            arguments.append(tirx.IntImm("int32", 0))
        result = self._call(variable, specification, arguments, "binary", specification.binary_macs)
        return self._reshaped(result, static_shape(variable))

    def _epilogue_convolution(self, variable: relax.Var, value: relax.Call) -> relax.Expr:
        attributes = {key: value.attrs[key] for key in ("images", "vectors", "steps", "stores", "planes", "zero")}
        epilogue = Epilogue(
            images=tuple(ImageOperand(*(int(number) for number in operand)) for operand in attributes["images"]),
            vectors=int(attributes["vectors"]),
            steps=tuple((STEPS[int(name)], int(left), int(right)) for name, left, right in attributes["steps"]),
            stores=bool(attributes["stores"]),
            planes=int(attributes["planes"]),
            zero=int(attributes["zero"]),
        )
        words, weight, scale, shift, *operands = value.args
        words, specification = self._unshifted(words, convolution_specification(value))
        specification = replace(specification, epilogue=epilogue)
        _, kernel = self._kernel(specification)
        arguments = [
            self._reshaped(self.lookup(words), specification.input_shape),
            relax.const(kernel.pack_weights(constant_array(weight))),
            scale,
            shift,
            *(self.lookup(operand) for operand in operands),
        ]
        if specification.block_rows:
            arguments.append(tirx.IntImm("int32", 0))
        out = relax.TensorType(specification.output_shape, "float32")
        if epilogue.planes:
            *pixels, channels = specification.output_shape
            words_type = relax.TensorType([*pixels, word_count(channels)], "uint32")
            out = [out] * epilogue.stores + [words_type] * epilogue.planes
        result = self._call_kernel(
            specification, arguments, out, "binary", specification.binary_macs, str(value.attrs["layers"])
        )
        alone = isinstance(out, list) and len(out) == 1
        return self.emit(relax.Tuple([result])) if alone else result

    def _unshifted(
        self, words: relax.Expr, specification: ConvolutionSpecification
    ) -> tuple[relax.Expr, ConvolutionSpecification]:
        """Words before they are shifted, if the layer's kernel can shift them while it reads; else both as they are."""
        value = self.values.get(words)
        if operator_name(value) != "bnn.shift_words" or static_shape(value.args[0]) != static_shape(words):
            return words, specification
        segments = _segments(value)
        if not takes_shifts(specification, segments, self.target):
            return words, specification
        return value.args[0], replace(specification, shifts=segments)

    def _kernel(self, specification: Specification) -> tuple[ir.GlobalVar, object]:
        if specification not in self.kernels:
            kernel = select_kernel(specification, self.target)
            # Opaque to FuseOps: these kernels are scheduled already.
            epilogue = getattr(specification, "epilogue", None)
            outputs = 1 if epilogue is None else epilogue.stores + epilogue.planes
            function = (
                _outputs_last(kernel.build(), outputs).with_attr("op_pattern", 8).with_attr("bnn.kernel", kernel.name)
            )
            self.kernels[specification] = (self.builder.add_func(function, kernel.name), kernel)
        return self.kernels[specification]

    def _call(
        self,
        variable: relax.Var,
        specification: Specification,
        arguments: list[relax.Expr],
        kind: str,
        binary_macs: int,
        results: int = 0,
        layer: str = "",
    ) -> relax.Expr:
        """A call of the kernel; with ``results``, of that many tensors as a tuple."""
        dtype = "uint32" if kind == "pack" else "float32"
        out = relax.TensorType(specification.output_shape, dtype)
        layer = layer or self._layer(variable)
        return self._call_kernel(
            specification, arguments, [out] * results if results else out, kind, binary_macs, layer
        )

    def _call_kernel(
        self,
        specification: Specification,
        arguments: list[relax.Expr],
        out: relax.TensorType | list[relax.TensorType],
        kind: str,
        binary_macs: int,
        layer: str,
    ) -> relax.Expr:
        function, _ = self._kernel(specification)
        result = relax.call_tir(function, arguments, out)
        attributes = ir.make_node("ir.DictAttrs", layer=layer, kind=kind, binary_macs=binary_macs)
        return self.emit(relax.Call(result.op, result.args, attributes, result.ty_args))

    def _layer(self, variable: relax.Var) -> str:
        return str(self.module.attrs["layer_names"].get(layer_identifier(variable), variable.name))

    def _reshaped(self, x: relax.Expr, shape: tuple[int, ...]) -> relax.Expr:
        if tuple(shape) == static_shape(x):
            return x
        if is_constant(x):
            return relax.const(constant_array(x).reshape(shape))
        return self.emit(relax.op.reshape(x, shape))


def _segments(value: relax.Call) -> tuple[tuple[int, int, int, int], ...]:
    return tuple(tuple(int(number) for number in segment) for segment in value.attrs["segments"])


def _rows_and_columns(leading: Sequence[int]) -> tuple[int, int, int]:
    """Anything but an image as (N, 1, W): rows of channels, with the planes of three-valued words where they are."""
    return prod(leading[:2]), 1, prod(leading[2:])


def convolution_specification(value: relax.Call) -> ConvolutionSpecification:
    """A packed convolution as the kernel table knows it."""
    attributes = ConvolutionAttributes.of(value)
    batch, height, *_, width, _ = static_shape(value.args[0])
    return ConvolutionSpecification(
        batch=batch,
        height=height,
        width=width,
        in_channels=attributes.in_channels,
        out_channels=static_shape(value.args[1])[0],
        kernel_shape=attributes.kernel_shape,
        strides=attributes.strides,
        pads=attributes.pads,
        group=attributes.group,
        ternary=bool(attributes.ternary),
        tap_scaled=operator_name(value) == "bnn.packed_tap_scaled_conv2d",
        block_rows=attributes.block_rows,
    )


def _outputs_last(function: tirx.PrimFunc, outputs: int) -> tirx.PrimFunc:
    """The same function with plain numbers before buffers' last: call_tir wants its outputs at the end."""
    numbers = [parameter for parameter in function.params if isinstance(parameter.ty, ir.PrimType)]
    if not numbers:
        return function
    buffers = [parameter for parameter in function.params if not isinstance(parameter.ty, ir.PrimType)]
    inputs, results = buffers[:-outputs], buffers[-outputs:]
    return tirx.PrimFunc([*inputs, *numbers, *results], function.body, function.ret_type, function.attrs)
