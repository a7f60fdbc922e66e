"""What the Triton kernels of both losses share; for NVIDIA and AMD GPUs."""
