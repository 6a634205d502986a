"""Replace packed binary operators by calls of the target's kernels.

Before::

    p = bnn.sign_pack(x, t);                     y = bnn.packed_conv2d(p, w, scale, shift)
After::

    p = call_tir(sign_pack_…, (x, t));           y = call_tir(binary_conv2d_…, (p, w', scale, shift)) {layer, kind, binary_macs}

``targets.kernels`` chooses each kernel by shape and target; the weights are laid out here, at compile time, as that kernel
reads them. Kernels that can (``takes_shifts`` of the kernel table) read the words before ``bnn.shift_words`` from where it
would take them; shifted words that nothing reads any more are not computed.
Where: after ``fuse_epilogue``, which decides what a kernel takes in; before ``fuse_float``, which makes kernels of the rest.
Not handled: thresholds that vary over space, and weights or scales that are computed at run time: CompileError.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tvm
from tvm import ir, relax, tirx

from bnn_deploy.dialect.operators import is_three_valued
from bnn_deploy.errors import CompileError
from bnn_deploy.passes.relax.expressions import constant_array, is_constant, operator_name, static_shape
from bnn_deploy.passes.relax.kernel_specifications import (
    layer_specification,
    many_packs_specification,
    pack_specification,
    shift_specification,
)
from bnn_deploy.passes.relax.rewriter import DataflowRewriter
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.pack_specification import PackSpecification, SignPackSpecification
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification, ShiftWordsSpecification, Specification
from bnn_deploy.targets.kernels.words import word_count
from bnn_deploy.targets.table import select_kernel, takes_shifts

_LAYERS = ("bnn.packed_conv2d", "bnn.packed_tap_scaled_conv2d", "bnn.epilogue_conv2d", "bnn.packed_linear")
# Stands for the index of the block; the plan passes it.
_BLOCK = [tirx.IntImm("int32", 0)]


def lower_binary(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Run the pass for ``target``; see the module's docstring."""
    return _LowerBinary(module, target).run()


class _LowerBinary(DataflowRewriter):
    def __init__(self, module: tvm.IRModule, target: Target) -> None:
        super().__init__(module)
        self.target = target
        self.kernels: dict[Specification, tuple[ir.GlobalVar, Kernel]] = {}

    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        name = operator_name(value)
        if name in ("bnn.sign_pack", "bnn.ternary_pack"):
            return self._pack(variable, value)
        if name in ("bnn.sign_pack_many", "bnn.ternary_pack_many"):
            return self._pack_many(value)
        if name == "bnn.shift_words":
            return self._shift_words(variable, value)
        if name in _LAYERS:
            return self._layer(variable, value)
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
        layer = self.layer_name(variable)
        specification = pack_specification(value, layer)
        shapes = [specification.input_shape]
        if isinstance(specification, SignPackSpecification):
            shapes.append(specification.threshold_shape)
        arguments = [self._reshaped(self.lookup(a), shape) for a, shape in zip(value.args, shapes, strict=True)]
        words = self._call(specification, arguments, _words(specification), layer)
        return self._reshaped(words, static_shape(variable))

    def _pack_many(self, value: relax.Call) -> relax.Expr:
        x, vectors = value.args
        specification = many_packs_specification(value)
        out = [_words(specification)] * specification.planes
        return self._call(specification, [self.lookup(x), vectors], out, str(value.attrs["layers"]))

    def _shift_words(self, variable: relax.Var, value: relax.Call) -> relax.Expr:
        specification = shift_specification(value)
        arguments = [self.lookup(value.args[0])] + _BLOCK * bool(specification.block_rows)
        return self._call(specification, arguments, _words(specification), self.layer_name(variable))

    def _layer(self, variable: relax.Var, value: relax.Call) -> relax.Expr:
        words, weight, scale, shift, *operands = value.args
        words, specification = self._unshifted(words, layer_specification(value))
        if not all(is_constant(argument) for argument in (weight, scale, shift)):
            raise CompileError(
                f"Layer '{self.layer_name(variable)}' computes its packed weights or scale at run time; they must be constants."
            )
        _, kernel = self._kernel(specification)
        arguments = [
            self._reshaped(self.lookup(words), specification.input_shape),
            relax.const(kernel.pack_weights(constant_array(weight))),
            relax.const(kernel.pack_scale(constant_array(scale))),
            shift,
            *(self.lookup(operand) for operand in operands),
            *_BLOCK * bool(specification.block_rows),
        ]
        fused = operator_name(value) == "bnn.epilogue_conv2d"
        layer = str(value.attrs["layers"]) if fused else self.layer_name(variable)
        out, epilogue = relax.TensorType(specification.output_shape, "float32"), specification.epilogue
        if not epilogue.planes:
            return self._reshaped(self._call(specification, arguments, out, layer), static_shape(variable))
        *pixels, channels = specification.output_shape
        packed = relax.TensorType([*pixels, word_count(channels)], "uint32")
        return self._call(specification, arguments, [out] * epilogue.stores + [packed] * epilogue.planes, layer)

    def _unshifted(
        self, words: relax.Expr, specification: ConvolutionSpecification
    ) -> tuple[relax.Expr, ConvolutionSpecification]:
        """Words before they are shifted, if the layer's kernel can shift them while it reads; else both as they are."""
        shift = self.producer(words, "bnn.shift_words")
        if shift is None or static_shape(shift.args[0]) != static_shape(words):
            return words, specification
        segments = shift_specification(shift).segments
        if not takes_shifts(specification, segments, self.target):
            return words, specification
        return shift.args[0], replace(specification, shifts=segments)

    def _kernel(self, specification: Specification) -> tuple[ir.GlobalVar, Kernel]:
        if specification not in self.kernels:
            kernel = select_kernel(specification, self.target)
            outputs = 1
            if isinstance(specification, ConvolutionSpecification):
                outputs = specification.epilogue.stores + specification.epilogue.planes
            # Opaque to FuseOps: these kernels are scheduled already.
            function = _outputs_last(kernel.build(), outputs).with_attr("op_pattern", 8)
            function = function.with_attr("bnn.kernel", kernel.name)
            self.kernels[specification] = (self.builder.add_func(function, kernel.name), kernel)
        return self.kernels[specification]

    def _call(
        self,
        specification: Specification,
        arguments: list[relax.Expr],
        out: relax.TensorType | list[relax.TensorType],
        layer: str,
    ) -> relax.Expr:
        """A call of the kernel, with a result of type ``out``; a tuple for a list of types."""
        function, kernel = self._kernel(specification)
        called = relax.call_tir(function, arguments, out)
        attributes = ir.make_node("ir.DictAttrs", layer=layer, kind=kernel.kind, binary_macs=kernel.binary_macs)
        result = self.emit(relax.Call(called.op, called.args, attributes, called.ty_args))
        # call_tir makes no tuple of one tensor.
        return self.emit(relax.Tuple([result])) if isinstance(out, list) and len(out) == 1 else result

    def _reshaped(self, x: relax.Expr, shape: tuple[int, ...]) -> relax.Expr:
        if shape == static_shape(x):
            return x
        if is_constant(x):
            return relax.const(constant_array(x).reshape(shape))
        return self.emit(relax.op.reshape(x, shape))


def _words(specification: PackSpecification | ShiftWordsSpecification) -> relax.TensorType:
    return relax.TensorType(specification.output_shape, "uint32")


def _outputs_last(function: tirx.PrimFunc, outputs: int) -> tirx.PrimFunc:
    """The same function with plain numbers before buffers' last: call_tir wants its outputs at the end."""
    numbers = [parameter for parameter in function.params if isinstance(parameter.ty, ir.PrimType)]
    if not numbers:
        return function
    buffers = [parameter for parameter in function.params if not isinstance(parameter.ty, ir.PrimType)]
    inputs, results = buffers[:-outputs], buffers[-outputs:]
    return tirx.PrimFunc([*inputs, *numbers, *results], function.body, function.ret_type, function.attrs)
