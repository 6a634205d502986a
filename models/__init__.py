"""The papers' networks in PyTorch: binary layers, calibration, checkpoints of their authors."""
