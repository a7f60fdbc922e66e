"""The Triton backend: fused kernels for NVIDIA and AMD GPUs."""

from gss_kernels.triton.launch import triton_loss, triton_soft_targets

__all__ = ["triton_loss", "triton_soft_targets"]
