"""Group Self-Support (GSS) losses for segmentation with missing modalities.

Names are imported when they are first asked for: who needs `CategoryGroups` alone does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_FILES = {
    "functional": ("fused_gss_loss", "gss_loss_reference", "gss_soft_targets"),
    "groups": ("BRATS_2015", "BRATS_2018", "BRATS_2020", "CategoryGroups"),
    "modules": ("GSSLoss", "SegmentationLoss"),
    "objective": ("fused_gss_objective",),
    "results": ("ROUTES", "GSSStatistics", "ObjectiveTerms"),
    "supervised": ("SegmentationTerms", "fused_segmentation_loss"),
    "voxel_mask": ("draw_voxel_mask",),
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
    return value
