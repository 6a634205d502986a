"""PyTorch to ONNX: binary layers become nodes of the ``bnn_deploy`` domain, with packed weights."""
