"""Runs in the emulated Python of arm_instructions.py: ``onnxruntime_calls.py MODEL.onnx X.npy Y.npy CALLS``, one thread."""

import sys

import numpy
import onnxruntime

model, images, output, calls = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 3
session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
inputs = {session.get_inputs()[0].name: numpy.load(images)}
for _ in range(int(calls)):
    result = session.run(None, inputs)[0]
numpy.save(output, result)
