"""Group Self-Support (GSS) losses for segmentation with missing modalities."""

from gss_kernels.functional import fused_gss_loss, gss_loss_reference, gss_soft_targets
from gss_kernels.groups import BRATS_2015, BRATS_2018, BRATS_2020, CategoryGroups
from gss_kernels.modules import GSSLoss, SegmentationLoss
from gss_kernels.objective import fused_gss_objective
from gss_kernels.results import ROUTES, GSSStatistics, ObjectiveTerms
from gss_kernels.supervised import SegmentationTerms, fused_segmentation_loss
from gss_kernels.voxel_mask import draw_voxel_mask

__all__ = [
    "BRATS_2015",
    "BRATS_2018",
    "BRATS_2020",
    "ROUTES",
    "CategoryGroups",
    "GSSLoss",
    "GSSStatistics",
    "ObjectiveTerms",
    "SegmentationLoss",
    "SegmentationTerms",
    "draw_voxel_mask",
    "fused_gss_loss",
    "fused_gss_objective",
    "fused_segmentation_loss",
    "gss_loss_reference",
    "gss_soft_targets",
]
