"""The network as a Relax module: our binary operators, what its variables hold, and the way there from ONNX."""
