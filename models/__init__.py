"""The papers' networks in PyTorch: binary layers, their gradients, and seeded weights that keep a margin."""
