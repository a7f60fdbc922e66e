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

# In this order: what comes first needs no torch.
_FILES = ("groups", "settings", "voxel_mask", "segmentation.api", "gss.api", "modules")


def __getattr__(name: str) -> Any:
    for file in _FILES if name in __all__ else ():
        module = importlib.import_module(f"{__name__}.{file}")
        if hasattr(module, name):
            value = globals()[name] = getattr(module, name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
