"""The operators of QONNX and FINN, one file each, written with standard ONNX operators."""
