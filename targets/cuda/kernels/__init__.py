"""CUDA kernels for binary layers and packing: one module per way of computing, chosen by ``targets.table``."""
