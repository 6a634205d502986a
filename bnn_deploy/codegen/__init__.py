"""Machine code: plans and kernels to C, objects and binaries, for processors and for GPUs."""
