"""Group Self-Support (GSS) losses for segmentation with missing modalities.

Names are imported when they are first asked for: who needs `CategoryGroups` alone does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gss_kernels.groups import BRATS_2015, BRATS_2018, BRATS_2020, CategoryGroups
    from gss_kernels.gss.api import (
        ROUTES,
        GSSStatistics,
        ObjectiveTerms,
        fused_gss_loss,
        fused_gss_objective,
        gss_loss_reference,
        gss_soft_targets,
    )
    from gss_kernels.modules import GSSLoss, GSSObjective, SegmentationLoss
    from gss_kernels.segmentation.api import SegmentationTerms, fused_segmentation_loss
    from gss_kernels.settings import GSSSettings
    from gss_kernels.voxel_mask import draw_voxel_mask

__all__ = [
    "BRATS_2015",
    "BRATS_2018",
    "BRATS_2020",
    "ROUTES",
    "CategoryGroups",
    "GSSLoss",
    "GSSObjective",
    "GSSSettings",
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
    "groups": ("BRATS_2015", "BRATS_2018", "BRATS_2020", "CategoryGroups"),
    "gss.api": (
        "ROUTES",
        "GSSStatistics",
        "ObjectiveTerms",
        "fused_gss_loss",
        "fused_gss_objective",
        "gss_loss_reference",
        "gss_soft_targets",
    ),
    "modules": ("GSSLoss", "GSSObjective", "SegmentationLoss"),
    "segmentation.api": ("SegmentationTerms", "fused_segmentation_loss"),
    "settings": ("GSSSettings",),
    "voxel_mask": ("draw_voxel_mask",),
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
    return value
