"""Plain formulations that the kernels are compared with."""
