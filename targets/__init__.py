"""The machines, and the kernels for them."""
