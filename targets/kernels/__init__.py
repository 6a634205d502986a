"""Kernels: TIR functions over packed bits, and the one table that selects them."""
