"""The front end for graphs from elsewhere: standard ONNX in, binary layers found by proof."""
