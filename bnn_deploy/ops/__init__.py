"""The operator set of the ONNX domain ``bnn_deploy``: one file per operator; docs/operators.md is its specification."""
