"""The reference backend: the losses in plain PyTorch, on any device."""

from gss_kernels.reference.gss import reference_group_loss, reference_soft_targets
from gss_kernels.reference.segmentation import reference_segmentation_loss

__all__ = ["reference_group_loss", "reference_segmentation_loss", "reference_soft_targets"]
