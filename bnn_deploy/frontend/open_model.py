"""Opening a model for the compiler, whoever wrote the file: ours as it is, any other through the front end.

``reference`` is what a compiled model is compared with: the file itself, as far as onnxruntime can run it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import ModelProto, NodeProto
from onnx_ir.passes import common

from bnn_deploy.errors import ModelFileError, message_lines
from bnn_deploy.files import file_sha256
from bnn_deploy.metadata import entries
from bnn_deploy.onnx_files.binary_layers import require_binary
from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.onnx_files.standard_operators import LAYERS, STANDARD_DOMAINS, standard_opset
from bnn_deploy.onnx_files.writing import finish, write_onnx
from bnn_deploy.ops.registry import DOMAIN, is_binary_layer
from bnn_deploy.passes.onnx.canonicalise import canonicalise
from bnn_deploy.passes.onnx.import_report import ActivationReport, ImportOptions, ImportReport, LayerReport
from bnn_deploy.passes.onnx.qonnx.expand_qonnx import expand_qonnx
from bnn_deploy.progress import ReportProgress, quiet


class NothingBinaryError(ModelFileError):
    """A file without binary layers; ``report`` says of every layer why."""

    def __init__(self, message: str, report: ImportReport) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class OpenedModel:
    """A model ready to be compiled.

    Attributes:
        model: standard operators, and ``bnn_deploy`` nodes where a layer is binary.
        reference: the same network as its file states it, in operators that any runtime knows.
        report: what was recognised, and of every other layer why not.
        foreign: whether the file had no ``bnn_deploy`` node and went through the front end.
    """

    model: ModelProto
    reference: ModelProto
    report: ImportReport
    foreign: bool


def open_model(
    path: str | Path,
    options: ImportOptions | None = None,
    progress: ReportProgress = quiet,
) -> OpenedModel:
    """Read an ONNX file and find its binary layers.

    Args:
        path: file of ``bnn-deploy export``, of ``torch.onnx.export``, of Brevitas, or any other ONNX file.
        options: choices that a foreign graph leaves; None makes the defaults.
        progress: told what is being done.

    Raises:
        ModelFileError: the file cannot be used, or needs a choice.
        NothingBinaryError: it holds nothing binary; names the nearest misses.
    """
    path = Path(path)
    model = load_onnx(path)
    if _is_ours(model):
        require_binary(model, path)
        return OpenedModel(model, model, _report_of(model), foreign=False)
    progress("recognise binary layers")
    reference = _stated(model)
    canonical, report = canonicalise(reference, options or ImportOptions())
    known = {name for node in reference.graph.node for name in node.output}
    known |= {value.name for value in (*reference.graph.input, *reference.graph.initializer)}
    # Converting an old operator, or folding, may have given a value another name; then it cannot be pointed to.
    report.activations = [
        row
        if row.source in known and (row.threshold in known or not isinstance(row.threshold, str))
        else replace(row, source="")
        for row in report.activations
    ]
    if not report.binary_layers:
        raise NothingBinaryError(_nothing_binary(path, report), report)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    metadata[entries.IMPORTED_FROM] = path.name
    metadata[entries.IMPORTED_SHA256] = file_sha256(path)
    changed = [row.name for row in report.activations if row.graph_zero == 0 and row.compiled_zero != 0]
    if changed:
        metadata[entries.SIGN_ZERO_CHANGED] = json.dumps(changed)
    finish(canonical, metadata, standard_opset(canonical))
    try:
        onnx.checker.check_model(canonical)
    except onnx.checker.ValidationError as error:
        raise ModelFileError(
            f"{path}: the recognised model is not valid ONNX ({message_lines(error)[0]}). This is a defect of bnn-deploy; "
            "please report it with the file."
        ) from error
    require_binary(canonical, path)
    return OpenedModel(canonical, reference, report, foreign=True)


def open_reference(path: str | Path) -> ModelProto:
    """The model in ``path`` as the file states it, in operators that onnxruntime knows; see ``OpenedModel.reference``.

    Raises:
        ModelFileError: the file cannot be used, or has ``bnn_deploy`` nodes but no binary layer.
    """
    model = load_onnx(path)
    if not _is_ours(model):
        return _stated(model)
    require_binary(model, path)
    return model


def _is_ours(model: ModelProto) -> bool:
    return any(node.domain == DOMAIN for node in model.graph.node)


def _stated(model: ModelProto) -> ModelProto:
    """A foreign model with QONNX operators written out and functions inlined, so that every value has a name in one graph."""
    model = expand_qonnx(model)
    if not model.functions:
        return model
    inlined = ir.from_proto(model)
    common.InlinePass()(inlined)
    return ir.to_proto(inlined)


def import_file(
    path: str | Path,
    output: str | Path,
    options: ImportOptions | None = None,
    progress: ReportProgress = quiet,
) -> ImportReport:
    """Write what ``open_model`` makes of the file ``path`` to ``output``: packed weights, readable by every ONNX runtime."""
    opened = open_model(path, options, progress)
    write_onnx(opened.model, Path(output))
    return opened.report


def _nothing_binary(path: Path, report: ImportReport) -> str:
    misses = [f"{row.name} ({row.op}): {' and '.join(row.reasons)}" for row in report.nearest_misses()]
    if not misses:
        return f"No binary layers found in {path}: it has no Conv, Gemm or MatMul at all; give a binary neural network."
    nearest = "; ".join(misses)
    return (
        f"No binary layers found in {path}, which has {len(report.layers)} real-valued Conv/Gemm/MatMul layers. "
        f"The nearest: {nearest}. A binary layer reads signs (Sign, x > t, Round of Clip) and has weights of one magnitude "
        "per output channel; `bnn-deploy import --explain` lists every layer."
    )


def _report_of(model: ModelProto) -> ImportReport:
    """The report of a file that has ``bnn_deploy`` nodes already: its layers, and signs that an import changed at 0."""
    changed = _changed_zeros(model)
    report = ImportReport()
    for node in model.graph.node:
        if is_binary_layer(node):
            report.layers.append(LayerReport(node.name, node.op_type, True, "signs", "packed"))
        elif node.domain == DOMAIN and node.name in changed:
            report.activations.append(
                ActivationReport(node.name, node.input[0], "sign", graph_zero=0, compiled_zero=_zero(node))
            )
        elif node.domain in STANDARD_DOMAINS and node.op_type in LAYERS:
            reasons = ("the file states it as a real-valued layer",)
            report.layers.append(LayerReport(node.name, node.op_type, False, "", "", reasons, distance=1.0))
    return report


def _changed_zeros(model: ModelProto) -> set[str]:
    text = next((entry.value for entry in model.metadata_props if entry.key == entries.SIGN_ZERO_CHANGED), "[]")
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelFileError(
            f"The metadata entry {entries.SIGN_ZERO_CHANGED} of the model is damaged; import the model again."
        )
    return set(names)


def _zero(node: NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "zero"), -1)
