"""ONNX files: read without trusting them, walked, named, counted and written."""
