"""The operator set of the ONNX domain ``bnn_deploy``: one file per operator; docs/operators.md is its specification."""

from __future__ import annotations

from bnn_deploy.ops.registry import DOMAIN, OPERATORS, OPSET, functions

__all__ = ["DOMAIN", "OPERATORS", "OPSET", "functions"]
