"""The reference backend: the losses in plain PyTorch, on any device."""

from gss_kernels.reference.gss import reference_loss, reference_soft_targets

__all__ = ["reference_loss", "reference_soft_targets"]
