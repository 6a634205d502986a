"""Bring a graph of standard operators, from whichever exporter and year, into one plain form.

Before::

    opset 11;  w' = Mul(ReduceMean(Abs(w)), Sign(w));  y = Conv(Dropout(x), Identity(w'))
After::

    opset 21;  w' an initializer;  y = Conv(x, w')

Functions are inlined, the standard operator set is raised to ``STANDARD_OPSET`` (never lowered), everything that depends
on constants alone is computed, equal nodes become one, and nodes without effect in inference go.
Where: first, since every later rule wants constants to be initializers and reads one version of each operator.
Not handled: a model whose operators onnx cannot convert (an error says which), control flow (If, Loop) that does not fold.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer, version_converter

from bnn_deploy.errors import ModelFileError, message_lines
from bnn_deploy.onnx_files.reading import drop_default_inputs
from bnn_deploy.onnx_files.standard_operators import standard_opset
from bnn_deploy.ops.operator import STANDARD_OPSET
from bnn_deploy.passes.onnx.plain_form.drop_expand import drop_expand
from bnn_deploy.passes.onnx.plain_form.drop_no_ops import drop_no_ops
from bnn_deploy.passes.onnx.plain_form.expand_border import expand_border
from bnn_deploy.passes.onnx.plain_form.expand_einsum import expand_einsum
from bnn_deploy.passes.onnx.plain_form.expand_resize import expand_resize
from bnn_deploy.passes.onnx.plain_form.fix_reshape import fix_reshape
from bnn_deploy.passes.onnx.plain_form.fold_extents import fold_extents
from bnn_deploy.passes.onnx.plain_form.fold_strided import fold_strided
from bnn_deploy.passes.onnx.plain_form.name_modules import name_modules
from bnn_deploy.passes.onnx.plain_form.restore_group_norm import restore_group_norm

# onnxscript converts from here on and keeps the notes of torch's exporter, which hold the module paths; onnx's own
# converter, for anything older, drops them (older exporters wrote none).
OLDEST_FOR_ONNXSCRIPT = 18
# Bytes of a folded constant: weights are folded whatever their size, and cannot be larger than the file they came from.
ANY_SIZE = 2**31 - 1
# Each round takes all reshapes whose target depends on the shapes found in the round before: channel shuffles in a row.
_MAXIMUM_ROUNDS = 12


def normalise_graph(model: onnx.ModelProto) -> ir.Model:
    """The same network as an ``onnx_ir`` model in the form described above; ``model`` is left as it is.

    Raises:
        ModelFileError: the operator set cannot be raised, or the shapes contradict each other.
    """
    version = standard_opset(model)
    # A copy: an ir.Model renames tensors in the protobuf itself, which is also the reference that others run.
    model = _converted(model, version) if version < OLDEST_FOR_ONNXSCRIPT else _copied(model)
    graph_model = ir.from_proto(model)
    common.RemoveInitializersFromInputsPass()(graph_model)
    common.InlinePass()(graph_model)
    name_modules(graph_model.graph)
    if OLDEST_FOR_ONNXSCRIPT <= version < STANDARD_OPSET:
        with _quiet():
            version_converter.convert_version(graph_model, STANDARD_OPSET)
    graph_model.ir_version = max(graph_model.ir_version, 10)
    drop_no_ops(graph_model.graph)
    common.ShapeInferencePass(strict_mode=False)(graph_model)
    drop_expand(graph_model.graph)
    with _quiet():
        # Shapes make constants (the channels of an activation), and those more shapes.
        for count in range(_MAXIMUM_ROUNDS):
            common.ShapeInferencePass(strict_mode=False)(graph_model)
            found = fold_extents(graph_model.graph)
            for node in list(graph_model.graph):
                expand_einsum(graph_model.graph, node)
                expand_resize(graph_model.graph, node)
                expand_border(graph_model.graph, node)
            if count > 1 and not found:
                break
            optimizer.fold_constants(graph_model, input_size_limit=ANY_SIZE, output_size_limit=ANY_SIZE)
    for node in list(graph_model.graph):
        fold_strided(graph_model.graph, node)
        fix_reshape(graph_model.graph, node)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph_model)
    restore_group_norm(graph_model.graph)
    common.CommonSubexpressionEliminationPass()(graph_model)
    drop_no_ops(graph_model.graph)
    common.RemoveUnusedNodesPass()(graph_model)
    return graph_model


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _converted(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    plain = _copied(model)
    drop_default_inputs(plain)
    plain.ir_version = max(plain.ir_version, 10)
    try:
        return onnx.version_converter.convert_version(plain, STANDARD_OPSET)
    except Exception as error:
        raise ModelFileError(
            f"The model's operator set {version} cannot be raised to {STANDARD_OPSET}: {message_lines(error)[0]} "
            f"Export it again with opset_version={STANDARD_OPSET}."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converter and the folder log every node that they leave as it is."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
