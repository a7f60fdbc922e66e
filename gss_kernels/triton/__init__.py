"""The Triton backend: fused kernels for NVIDIA and AMD GPUs."""

from gss_kernels.triton.group import triton_group_backward, triton_group_forward, triton_soft_targets
from gss_kernels.triton.supervised import triton_segmentation_backward, triton_segmentation_forward

__all__ = [
    "triton_group_backward",
    "triton_group_forward",
    "triton_segmentation_backward",
    "triton_segmentation_forward",
    "triton_soft_targets",
]
