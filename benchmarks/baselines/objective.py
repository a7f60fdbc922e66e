"""The objective of the modalities' own predictions, put together from losses that are computed one by one."""

from __future__ import annotations

from torch import Tensor

from benchmarks.baselines.gss_loss import eager_loss
from benchmarks.baselines.segmentation_loss import eager_segmentation_loss
from gss_kernels import CategoryGroups, fused_gss_loss, fused_segmentation_loss
from gss_kernels.settings import Backend


def eager_objective(
    logits: Tensor,
    labels: Tensor,
    groups: CategoryGroups,
    *,
    keep: Tensor | None = None,
    supervised_weight: float = 1.0,
    gss_weight: float = 1.0,
) -> Tensor:
    """Both losses in plain PyTorch.

    Args:
        logits: `[B, M, C, *spatial]`; computed in float32.
        labels: category of every voxel, `[B, *spatial]`, an integer dtype.
        groups: the leaders of every category.
        keep: `[B, M, *spatial]` bool, true where GSS keeps the voxel; None draws it.
        supervised_weight: of the sum of the modalities' supervised losses.
        gss_weight: of the GSS loss.

    Returns:
        The weighted sum, a float32 scalar.
    """
    supervised = sum(eager_segmentation_loss(prediction, labels) for prediction in logits.unbind(1))
    return supervised_weight * supervised + gss_weight * eager_loss(logits, groups, keep=keep)


def separate_objective(
    logits: Tensor,
    labels: Tensor,
    groups: CategoryGroups,
    *,
    keep: Tensor | None = None,
    supervised_weight: float = 1.0,
    gss_weight: float = 1.0,
    backend: Backend = "auto",
) -> Tensor:
    """As `eager_objective`, by the fused GSS loss and one fused supervised loss per modality."""
    terms = [
        term for prediction in logits.unbind(1) for term in fused_segmentation_loss(prediction, labels, backend=backend)
    ]
    gss = fused_gss_loss(logits, groups, voxel_mask=keep, backend=backend)
    return supervised_weight * sum(terms) + gss_weight * gss
