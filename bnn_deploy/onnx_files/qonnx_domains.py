"""Which nodes belong to QONNX, under the several names that its operator sets have had."""

from __future__ import annotations

from onnx import ModelProto, helper

from bnn_deploy.onnx_files.walk import nodes_within

# "finn" and "onnx.brevitas" are what exporters wrote before QONNX had its own name.
DOMAINS = ("finn", "onnx.brevitas")
DOMAIN_PREFIXES = ("finn.custom_op.", "qonnx.custom_op.")


def is_qonnx(domain: str) -> bool:
    """Whether operators of ``domain`` are QONNX's or FINN's."""
    return domain in DOMAINS or domain.startswith(DOMAIN_PREFIXES)


def declare_qonnx_domains(model: ModelProto) -> None:
    """Add the ``opset_import`` that files with QONNX nodes often lack and that ONNX demands, in place.

    Version 1 stands for all: the versions of the operators that ``expand_qonnx`` knows mean the same.
    """
    for owner, nodes in [(model, model.graph.node), *((function, function.node) for function in model.functions)]:
        declared = {entry.domain for entry in owner.opset_import}
        used = {node.domain for node in nodes_within(nodes) if is_qonnx(node.domain)}
        owner.opset_import.extend(helper.make_opsetid(domain, 1) for domain in sorted(used - declared))
