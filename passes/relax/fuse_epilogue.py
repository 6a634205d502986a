"""Let convolution kernels finish what follows them: shortcut, biases, PReLU and the next signs, while sums are in registers.

Before::

    y = bnn.packed_conv2d(p, w, scale, shift);  z = add(y, x);  a = nn.prelu(z, slope);  q = bnn.sign_pack(a, t)
After::

    a, q = bnn.epilogue_conv2d(p, w, scale, shift, x, slope, t) {steps: [add 0 1, prelu 3 2], stores, planes}

Elementwise operators are taken in as long as nothing else reads what they read. Their other operands may be images that are
there by then, also repeated (BiMLP's tiled shortcut) or cut along the channels (its averaged one), and constants per channel.
Where: after ``merge_packs``; the float operators that are left go to ``fuse_float``.
Not handled: kernels whose registers do not hold whole images of outputs (``takes_epilogue`` of a kernel says which
take a program, and which also pack), operands of another shape than the image (one number per image and channel, as of
squeeze-and-excite, or one per pixel, as XNOR-Net's K), cosines, signs of three values.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax

from bnn_deploy.dialect.operators import ConvolutionAttributes, call, is_three_valued
from bnn_deploy.passes.relax.expressions import (
    call_of,
    channel_vector,
    constant_array,
    integers,
    is_constant,
    layer_identifier,
    operator_name,
    read_variables,
    readers_of,
    static_shape,
)
from bnn_deploy.passes.relax.kernel_specifications import convolution_specification
from bnn_deploy.passes.relax.rewriter import DataflowRewriter
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.epilogue import STEPS, ImageOperand
from bnn_deploy.targets.kernels.words import WORD_BITS
from bnn_deploy.targets.table import select_kernel

_MAXIMUM_IMAGES = 4
_RANK = 4


def fuse_epilogue(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Run the pass for ``target``; see the module's docstring."""
    return _FuseEpilogue(module, target).run()


# What a step reads: ("sums", 0), or the number of an image, of a vector or of a step before it.
_Operand = tuple[str, int]
_SUMS: _Operand = ("sums", 0)


@dataclass
class _Program:
    """An epilogue being collected; values are named until all operands are known."""

    layer: relax.Var
    result: relax.Var
    images: list[tuple[relax.Var, ImageOperand]] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)
    steps: list[tuple[str, _Operand, _Operand]] = field(default_factory=list)
    absorbed: list[relax.Var] = field(default_factory=list)
    packs: dict[relax.Var, list[np.ndarray]] = field(default_factory=dict)  # the thresholds of each

    def extent(self) -> tuple[int, int, int, int]:
        """How far it is collected; see ``cut``."""
        return len(self.images), len(self.vectors), len(self.steps), len(self.absorbed)

    def cut(self, extent: tuple[int, int, int, int]) -> None:
        """Take back what was collected since."""
        images, vectors, steps, absorbed = extent
        del self.images[images:], self.vectors[vectors:], self.steps[steps:], self.absorbed[absorbed:]


class _FuseEpilogue(DataflowRewriter):
    def __init__(self, module: tvm.IRModule, target: Target) -> None:
        super().__init__(module)
        self.target = target
        self.readers = readers_of(self.values)
        self.outputs = set(read_variables(self.main.body.body)) | set(
            read_variables(self.values.get(self.main.body.body))
        )
        self.taken: set[relax.Var] = set()  # part of a program
        self.hidden: set[relax.Var] = set()  # and no value of its own afterwards
        self.programs: dict[relax.Var, _Program] = {}
        # The last layer first: of several whose results are added, it has its sums in registers.
        for variable in reversed(list(self.values)):
            program = self._collect(variable)
            if program is not None:
                self.programs[program.result] = program
                self.taken |= {program.layer, *program.absorbed}
                self.hidden |= {program.layer, *program.absorbed} - {program.result}
        self.words: dict[relax.Var, relax.Expr] = {}

    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        if variable in self.words:
            return self.words[variable]
        if variable in self.programs:
            return self._emit(self.programs[variable])
        # Nothing but the program reads these.
        return self.main.params[0] if variable in self.hidden else None

    def _emit(self, program: _Program) -> relax.Expr:
        self._name = layer_identifier(program.layer)
        layer = self.values[program.layer]
        numbers = {_SUMS: 0}
        for i in range(len(program.images)):
            numbers["image", i] = 1 + i
        for i in range(len(program.vectors)):
            numbers["vector", i] = 1 + len(program.images) + i
        base = 1 + len(program.images) + len(program.vectors)
        for i in range(len(program.steps)):
            numbers["step", i] = base + i
        stores = self._is_needed(program)
        thresholds = [threshold for own in program.packs.values() for threshold in own]
        zero = next((int(self.values[pack].attrs["zero"]) for pack in program.packs), -1)
        attributes = {
            **vars(ConvolutionAttributes.of(layer)),
            "images": [[o.channels, o.first, o.width] for _, o in program.images],
            "vectors": len(program.vectors),
            "steps": [[STEPS.index(name), numbers[left], numbers[right]] for name, left, right in program.steps],
            "stores": int(stores),
            "planes": len(thresholds),
            "zero": zero,
            "layers": self._layers(program),
        }
        arguments = [self.lookup(layer.args[0]), *layer.args[1:], *(self.lookup(image) for image, _ in program.images)]
        arguments += [relax.const(np.ascontiguousarray(vector)) for vector in program.vectors]
        if thresholds:
            arguments.append(relax.const(np.stack(thresholds)))
        results = self.emit(call("bnn.epilogue_conv2d", arguments, attributes))
        if not thresholds:
            return results
        fields = [self.emit(relax.TupleGetItem(results, i)) for i in range(int(stores) + len(thresholds))]
        planes = iter(fields[int(stores) :])
        for pack, own in program.packs.items():
            if operator_name(self.values[pack]) == "bnn.sign_pack":
                self.words[pack] = next(planes)
            else:
                self.words[pack] = self.emit(relax.Tuple([next(planes) for _ in own]))
        return fields[0] if stores else self.main.params[0]

    def _is_needed(self, program: _Program) -> bool:
        """Whether anything but the packs reads the floats."""
        return program.result in self.outputs or any(r not in program.packs for r in self.readers[program.result])

    def _layers(self, program: _Program) -> str:
        members = [program.layer, *sorted(program.absorbed, key=list(self.values).index), *program.packs]
        found = []
        for member in members:
            value = self.values[member]
            own = value.attrs["layers"] if operator_name(value).endswith("_many") else None
            found.append(str(own or self.layer_name(member)))
        return " + ".join(dict.fromkeys(found))

    def _collect(self, variable: relax.Var) -> _Program | None:
        value = self.values[variable]
        if operator_name(value) != "bnn.packed_conv2d":
            return None
        kernel = select_kernel(convolution_specification(value), self.target)
        if not kernel.takes_epilogue:
            return None
        program = _Program(variable, variable)
        reference = _SUMS
        while True:
            follower = self._follower(program)
            taken = None if follower is None else self._take(program, follower, reference)
            if follower is None or taken is None:
                break
            reference = taken
            program.result = follower
            program.absorbed.append(follower)
        if not program.steps:
            return None
        if kernel.packs_signs:
            program.packs = self._packs(program.result)
        return program

    def _follower(self, program: _Program) -> relax.Var | None:
        """The one operator that reads the program's result, if there is only one."""
        readers = self.readers.get(program.result, [])
        if len(readers) != 1 or program.result in self.outputs or readers[0] in self.taken:
            return None
        return readers[0] if _shape_or_none(readers[0]) == static_shape(program.result) else None

    def _take(self, program: _Program, follower: relax.Var, reference: _Operand) -> _Operand | None:
        """Append the step of ``follower`` to the program; None when it cannot be taken, which leaves the program as it was."""
        before = program.extent()
        result = self._step(program, follower, {program.result: reference})
        if result is None or len(program.images) > _MAXIMUM_IMAGES:
            program.cut(before)
            return None
        return result

    def _step(self, program: _Program, variable: relax.Var, known: dict[relax.Var, _Operand]) -> _Operand | None:
        value = self.values[variable]
        name = operator_name(value).removeprefix("relax.").removeprefix("nn.")
        if name not in STEPS or (name == "prelu" and int(value.attrs.axis) % _RANK != _RANK - 1):
            return None
        left, right = (self._operand(program, argument, variable, known) for argument in value.args)
        if left is None or right is None:
            return None
        program.steps.append((name, left, right))
        return ("step", len(program.steps) - 1)

    def _operand(
        self, program: _Program, argument: relax.Expr, reader: relax.Var, known: dict[relax.Var, _Operand]
    ) -> _Operand | None:
        shape = static_shape(reader)
        if is_constant(argument):
            vector = channel_vector(argument, shape[-1])
            if vector is None:
                return None
            program.vectors.append(vector)
            return ("vector", len(program.vectors) - 1)
        if argument in known:
            return known[argument]
        if self._is_own(argument, reader, shape):
            before = program.extent()
            result = self._step(program, argument, known)
            if result is not None:
                program.absorbed.append(argument)
                return result
            program.cut(before)
        operand = self._image(program, argument, reader, shape)
        if operand is None:
            return None
        if operand not in program.images:
            program.images.append(operand)
        return ("image", program.images.index(operand))

    def _is_own(self, argument: relax.Var, reader: relax.Var, shape: tuple[int, ...]) -> bool:
        """Whether nothing but ``reader`` needs the operand, so that it may be computed in the program."""
        alone = self.readers.get(argument, []) == [reader] and argument not in self.outputs
        return alone and argument in self.values and _shape_or_none(argument) == shape and argument not in self.taken

    def _image(
        self, program: _Program, argument: relax.Var, reader: relax.Var, shape: tuple[int, ...]
    ) -> tuple[relax.Var, ImageOperand] | None:
        if str(argument.ty.dtype) != "float32" or argument in self.hidden or static_shape(argument) != shape:
            return None
        source, first, width = argument, 0, shape[-1]
        own = self._is_own(argument, reader, shape)
        repeated = self.producer(argument, "relax.concat") if own else None
        part = self.producer(argument, "relax.strided_slice") if own else None
        if repeated is not None and int(repeated.attrs.axis) % _RANK == _RANK - 1:
            fields = list(repeated.args[0].fields)
            if all(f.same_as(fields[0]) for f in fields) and isinstance(fields[0], relax.Var):
                source, width = fields[0], static_shape(fields[0])[-1]
        elif part is not None:
            axes, begin, _, strides = (integers(a) for a in part.args[1:])
            if [a % _RANK for a in axes] == [_RANK - 1] and strides == [1] and isinstance(part.args[0], relax.Var):
                source, first = part.args[0], begin[0]
        if width % WORD_BITS or source in self.hidden:
            return None
        if not source.same_as(argument):
            program.absorbed.append(argument)
        return source, ImageOperand(static_shape(source)[-1], first, width)

    def _packs(self, result: relax.Var) -> dict[relax.Var, list[np.ndarray]]:
        """The packs of the result that a kernel can do, and the thresholds of each."""
        packs: dict[relax.Var, list[np.ndarray]] = {}
        zeros: list[int] = []
        for reader in self.readers.get(result, []):
            thresholds = _thresholds(self.values[reader])
            if thresholds is None:
                continue
            zeros.append(int(self.values[reader].attrs["zero"]))
            # One convention at zero for all planes of a kernel.
            if zeros[-1] == zeros[0]:
                packs[reader] = thresholds
        return packs


def _thresholds(value: relax.Expr) -> list[np.ndarray] | None:
    """What a pack compares with, (C,) for each plane of words that it makes; None of other operators, and if it is computed."""
    pack = call_of(value, "bnn.sign_pack", "bnn.sign_pack_many")
    if pack is None or is_three_valued(pack) or not is_constant(pack.args[1]):
        return None
    if operator_name(pack) == "bnn.sign_pack_many":
        return list(constant_array(pack.args[1]))
    vector = channel_vector(pack.args[1], static_shape(pack.args[0])[-1])
    return None if vector is None else [vector]


def _shape_or_none(variable: relax.Var) -> tuple[int, ...] | None:
    """The shape of a tensor; None of a tuple."""
    return static_shape(variable) if isinstance(variable.ty, relax.TensorType) else None
