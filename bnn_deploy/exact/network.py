"""A whole network, operator by operator: its logits, and every value that its ONNX file names, as the compiled network has them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from bnn_deploy.dialect.values import values_of
from bnn_deploy.errors import CompileError, InputError
from bnn_deploy.exact.edges import edge_values
from bnn_deploy.exact.operation import NoRuleError
from bnn_deploy.exact.relax_reading import arguments_of, operation_of
from bnn_deploy.exact.rules import RULES, compute
from bnn_deploy.frontend.open_model import open_model
from bnn_deploy.passes.onnx.import_report import ImportOptions
from bnn_deploy.passes.pipeline import pack_network
from bnn_deploy.passes.relax.expressions import (
    constant_array,
    is_constant,
    layer_identifier,
    main_bindings,
    operator_name,
    read_variables,
    static_shape,
)

# (name in the ONNX file, "words" or "floats")
Key = tuple[str, str]
_KINDS = {"uint32": "words", "float32": "floats"}


@dataclass(frozen=True)
class ExactValue:
    """A value that the ONNX file names.

    Attributes:
        tensor: its name there.
        kind: "words": uint32, 32 signs each; "floats": float32.
        array: as it lies in the compiled network's memory, NHWC where the file has NCHW.
    """

    tensor: str
    kind: str
    array: np.ndarray


class ExactNetwork:
    """A network in packed Relax, evaluated in numpy with the arithmetic of ``docs/arithmetic.md``.

    Args:
        module: what ``passes.pipeline.pack_network`` makes of a model.
    """

    def __init__(self, module: tvm.IRModule) -> None:
        main = module["main"]
        self._input, self._output = main.params[0], main.body.body
        self._bindings = main_bindings(main)
        self._layers = {str(key): str(name) for key, name in module.attrs["layer_names"].items()}
        self._last_reads = _last_reads(self._bindings, self._output)
        self._keys: dict[relax.Var, Key] = {}
        self.shapes: dict[Key, tuple[int, ...]] = {}
        self._values = values_of(module)
        self.follow({})
        self.input_shape = static_shape(self._input)
        self._check_rules()

    @classmethod
    def open(cls, onnx_path: str | Path, batch: int, options: ImportOptions | None = None) -> ExactNetwork:
        """Read an ONNX file as the compiler does.

        Raises:
            ModelFileError, CompileError: it cannot be compiled, or has an operator without a rule; names the layer.
        """
        return cls(pack_network(open_model(onnx_path, options).model, batch))

    def follow(self, channels_last: Mapping[Key, bool]) -> None:
        """Say where a bundle has the values that the network computes in two orders of axes; the other is made of this one.

        Args:
            channels_last: whether it is the one with the channels last; values that are not named here are the first.
        """
        self._keys, self.shapes = {}, {}
        for binding in self._bindings:
            variable = binding.var
            value = self._values.get(variable.name)
            if value is None or not isinstance(variable.ty, relax.TensorType):
                continue
            kind = _KINDS.get(str(variable.ty.dtype))
            if kind is None:
                continue
            key = value.tensor, kind
            if key not in self.shapes and channels_last.get(key, value.channels_last) == value.channels_last:
                self._keys[variable] = key
                self.shapes[key] = static_shape(variable)

    def readers(self, keys: Collection[Key]) -> dict[Key, set[Key]]:
        """For each of ``keys``, those of them that are computed from it without another of them in between."""
        found: dict[Key, set[Key]] = {key: set() for key in keys}
        origins: dict[relax.Var, set[Key]] = {}
        for binding in self._bindings:
            read = set().union(*(origins.get(variable, set()) for variable in read_variables(binding.value)))
            key = self._keys.get(binding.var)
            if key in found:
                for origin in read:
                    found[origin].add(key)
                read = {key}
            origins[binding.var] = read
        return found

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 (n, …), of float32 images (n, C, H, W); n need not be the batch."""
        images, batch = np.asarray(images), self.input_shape[0]
        if images.ndim != len(self.input_shape) or not len(images):
            raise InputError(
                f"The exact network takes images {self.input_shape}, got an array of shape {images.shape}."
            )
        logits = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            missing = np.zeros((batch - len(part), *part.shape[1:]), part.dtype)
            *_, last = self._evaluate(np.concatenate([part, missing]), {}, {})
            assert isinstance(last, np.ndarray)
            logits.append(last[: len(part)])
        return np.concatenate(logits)

    def values(
        self,
        images: np.ndarray,
        forced: Mapping[Key, np.ndarray] | None = None,
        steps: Mapping[Key, int] | None = None,
    ) -> Iterator[ExactValue]:
        """Every value that the ONNX file names, in execution order, as computed.

        Args:
            images: float32 (batch, C, H, W).
            forced: what later operators read instead of the computed value, as it lies in memory.
            steps: the step of the compiled network that results in each value. What a step computes from another of its own
                results is not forced, as on a device, where values are replaced between steps. Default: every value is of a
                step of its own.

        Raises:
            InputError: images or forced values of another shape or type, or a forced value that the network does not have.
        """
        forced = forced or {}
        for key, array in forced.items():
            if key not in self.shapes:
                raise InputError(f"The network computes no {key[1]} '{key[0]}'; force one of those that it yields.")
            wanted = "uint32" if key[1] == "words" else "float32"
            if array.shape != self.shapes[key] or array.dtype != wanted:
                raise InputError(
                    f"The value forced on '{key[0]}' is {array.dtype} {array.shape}; the network has {wanted} "
                    f"{self.shapes[key]} there."
                )
        for value in self._evaluate(images, forced, steps or {}):
            if isinstance(value, ExactValue):
                yield value

    def edge_values(self, tensor: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Values for a forced float tensor that probe every sign of it at its boundary.

        Args:
            tensor: name in the ONNX file of a value of kind "floats".
            shape: as it lies in memory, channels last.
            rng: where each value stands is drawn from it.

        Returns:
            float32: each channel's thresholds, their neighbours, zeros of both signs, subnormal, common and large numbers.
        """
        return edge_values(self._thresholds(tensor), shape, rng)

    def _evaluate(
        self, images: np.ndarray, forced: Mapping[Key, np.ndarray], steps: Mapping[Key, int]
    ) -> Iterator[ExactValue | np.ndarray]:
        """Yields the named values, and last the logits."""
        if images.shape != self.input_shape or images.dtype != np.float32:
            raise InputError(
                f"The exact network takes float32 images {self.input_shape}, got {images.dtype} {images.shape}."
            )
        computed: dict[relax.Var, object] = {self._input: images}
        for position, binding in enumerate(self._bindings):
            variable, key = binding.var, self._keys.get(binding.var)
            step = steps.get(key) if key is not None else None

            def value_of(read: relax.Var, step: int | None = step) -> object:
                own = self._keys.get(read)
                if own is not None and own in forced and (step is None or steps.get(own) != step):
                    return forced[own]
                return computed[read]

            result = self._compute(variable, binding.value, value_of)
            if key is not None:
                assert isinstance(result, np.ndarray)
                yield ExactValue(*key, np.ascontiguousarray(result))
            computed[variable] = result
            for read in self._last_reads[position]:
                computed.pop(read, None)
        result = computed[self._output]
        output_key = self._keys.get(self._output)
        assert isinstance(result, np.ndarray)
        yield forced.get(output_key, result) if output_key is not None else result

    def _compute(self, variable: relax.Var, value: relax.Expr, value_of: Callable[[relax.Var], object]) -> object:
        if not isinstance(value, relax.Call):
            return arguments_of([value], value_of)[0]
        operation = operation_of(variable, value)
        try:
            result = compute(operation, arguments_of(value.args, value_of))
        except NoRuleError as reason:
            raise self._no_rule(variable, value, f" {reason}") from None
        if isinstance(result, np.ndarray) and (result.shape, str(result.dtype)) != (operation.shape, operation.dtype):
            raise CompileError(
                f"The exact evaluation of layer '{self._layer(variable)}' ({operation.name}) gave {result.dtype} "
                f"{result.shape} for {operation.dtype} {operation.shape}; this is a defect of bnn-deploy, please report it."
            )
        return result

    def _check_rules(self) -> None:
        for binding in self._bindings:
            if isinstance(binding.value, relax.Call) and operator_name(binding.value) not in RULES:
                raise self._no_rule(binding.var, binding.value)

    def _no_rule(self, variable: relax.Var, value: relax.Call, form: str = "") -> CompileError:
        return CompileError(
            f"Layer '{self._layer(variable)}' is the operator {operator_name(value)}{form}, which the exact reference cannot "
            "compute; choose --level 2 and --level 3, which do without it."
        )

    def _layer(self, variable: relax.Var) -> str:
        identifier = layer_identifier(variable)
        return self._layers.get(identifier, identifier or variable.name)

    def _thresholds(self, tensor: str) -> list[np.ndarray]:
        """What the signs that read a float value compare it with, each of a shape that broadcasts to the value's."""
        own = {variable for variable, key in self._keys.items() if key == (tensor, "floats")}
        if not own:
            raise InputError(f"The network computes no floats '{tensor}'; take one of those that it yields.")
        biases: dict[relax.Var, list[np.ndarray]] = {variable: [np.zeros((), np.float32)] for variable in own}
        found: list[np.ndarray] = []
        for binding in self._bindings:
            value, name = binding.value, operator_name(binding.value)
            if name not in ("relax.add", "bnn.sign_pack", "bnn.ternary_pack"):
                continue
            for place, argument in enumerate(value.args):
                before = biases.get(argument, []) if isinstance(argument, relax.Var) else []
                other = value.args[1 - place] if len(value.args) == 2 else None
                if not before or (other is not None and not is_constant(other)):
                    continue
                if name == "bnn.ternary_pack":
                    found += [np.float32(bound) - bias for bias in before for bound in (-0.5, 0.5)]
                elif name == "bnn.sign_pack":
                    found += [constant_array(other) - bias for bias in before]
                elif binding.var not in self._keys:
                    biases[binding.var] = [bias + constant_array(other) for bias in before]
        return found


def _last_reads(bindings: list[relax.VarBinding], output: relax.Expr) -> list[list[relax.Var]]:
    """For every binding, the variables that nothing after it reads, itself included."""
    last: dict[relax.Var, int] = {}
    for position, binding in enumerate(bindings):
        last[binding.var] = position
        for variable in read_variables(binding.value):
            last[variable] = position
    for variable in read_variables(output):
        last.pop(variable, None)
    result: list[list[relax.Var]] = [[] for _ in bindings]
    for variable, position in last.items():
        result[position].append(variable)
    return result
