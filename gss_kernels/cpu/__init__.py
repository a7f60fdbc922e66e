"""The CPU backend: chunks of voxels that stay in cache, with hand-written backward passes."""

from gss_kernels.cpu.gss import cpu_group_backward, cpu_group_forward, cpu_soft_targets
from gss_kernels.cpu.segmentation import cpu_segmentation_backward, cpu_segmentation_forward

__all__ = [
    "cpu_group_backward",
    "cpu_group_forward",
    "cpu_segmentation_backward",
    "cpu_segmentation_forward",
    "cpu_soft_targets",
]
