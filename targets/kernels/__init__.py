"""What kernels have in common, and the kernels of processors: TIR functions, chosen by ``targets.table``."""
