"""Writing ONNX files: what every file of ours carries, and all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from bnn_deploy.files import write_whole
from bnn_deploy.ops.registry import DOMAIN, OPERATORS, OPSET, STANDARD_OPSET
from bnn_deploy.version import __version__

# IR version of opset 21 (ONNX 1.16), the oldest that holds these files: so that older runtimes still read them.
IR_VERSION = 10


def finish(proto: onnx.ModelProto, metadata: Mapping[str, str], standard_opset: int = STANDARD_OPSET) -> None:
    """Add the functions used and the metadata; remove stack traces and other notes of the exporter.

    Args:
        proto: changed in place.
        metadata: all of ``metadata_props``.
        standard_opset: version of the standard operators in the graph, ``STANDARD_OPSET`` or newer; the functions get it too,
            since runtimes want one version in one file.
    """
    for item in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        del item.metadata_props[:]
        item.ClearField("doc_string")
    for value in (*proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
        value.ClearField("doc_string")
    # Runtimes infer these shapes; with names as long as module paths they would be a tenth of the file.
    del proto.graph.value_info[:]
    used = {node.op_type for node in proto.graph.node if node.domain == DOMAIN}
    del proto.functions[:]
    proto.functions.extend(operator.function(standard_opset) for name, operator in OPERATORS.items() if name in used)
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", standard_opset))
    if used:
        proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, OPSET))
    proto.ir_version = IR_VERSION if standard_opset == STANDARD_OPSET else max(IR_VERSION, proto.ir_version)
    proto.producer_name = "bnn-deploy"
    proto.producer_version = __version__
    proto.ClearField("doc_string")
    proto.graph.name = "main"
    onnx.helper.set_model_props(proto, {key: str(metadata[key]) for key in sorted(metadata)})


def write_onnx(proto: onnx.ModelProto, path: Path) -> None:
    """Write the file whole or not at all; raises InputError if it cannot be written."""
    # Deterministic: maps have no order of their own in protobuf.
    content = proto.SerializeToString(deterministic=True)
    write_whole(path, lambda file: file.write(content))
