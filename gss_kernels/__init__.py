"""Group Self-Support (GSS) losses for segmentation with missing modalities."""

from gss_kernels.functional import fused_gss_loss, gss_loss_reference, gss_soft_targets
from gss_kernels.groups import BRATS_2015, BRATS_2018, BRATS_2020, CategoryGroups
from gss_kernels.modules import GSSLoss

__all__ = [
    "BRATS_2015",
    "BRATS_2018",
    "BRATS_2020",
    "CategoryGroups",
    "GSSLoss",
    "fused_gss_loss",
    "gss_loss_reference",
    "gss_soft_targets",
]
