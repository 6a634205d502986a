"""The names of what the files of a model say of it: the metadata of ONNX files and of files of weights, and ``model`` in a
bundle's manifest, where `compile` copies them to. All values are texts."""

from __future__ import annotations

# How the model is built in PyTorch: a name of ``models.registry``; "" where it has no variants; whole numbers.
MODEL = "bnn_deploy.model"
VARIANT = "bnn_deploy.variant"
NUM_CLASSES = "bnn_deploy.num_classes"
INPUT_SIZE = "bnn_deploy.input_size"

# What its inputs and outputs mean, both JSON: see ``metadata.preprocessing`` and ``metadata.class_names``.
PREPROCESSING = "bnn_deploy.preprocessing"
CLASS_NAMES = "bnn_deploy.class_names"

# Where its weights are from: a few words, the digest of ``export.provenance.parameters_sha256``, and for seeded ones the
# inputs on which they keep a margin, JSON, see ``metadata.calibration``.
WEIGHTS = "bnn_deploy.weights"
WEIGHTS_SHA256 = "bnn_deploy.weights_sha256"
CALIBRATION = "bnn_deploy.calibration"
# Of files of weights only: how they were trained, JSON for people; and what a training run goes on from, which is no such
# file, see ``training.checkpoint``.
TRAINING = "bnn_deploy.training"
CHECKPOINT = "bnn_deploy.checkpoint"

# "true" where the model's paper counts the additions of biases, see ``onnx_files.statistics``.
COUNTS_BIASES = "bnn_deploy.counts_biases"

# Of a file that the front end made: the file it was, and a JSON list of the nodes at which that said sign(0) = 0 and this one
# says -1 or +1.
IMPORTED_FROM = "bnn_deploy.imported_from"
IMPORTED_SHA256 = "bnn_deploy.imported_sha256"
SIGN_ZERO_CHANGED = "bnn_deploy.sign_zero_changed"
