"""Passes over kernels: float loops to vectors and threads, and what makes C functions and CUDA kernels of them."""
