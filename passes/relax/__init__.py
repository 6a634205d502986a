"""Passes over the network: layout, folding, packing, fusing, and the choice of kernels."""
