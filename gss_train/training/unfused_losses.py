"""The supervised losses that RobustSeg and U-HVED were published with, where they are not those of RFNet."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional

_SMOOTHING = 1e-7


def squared_dice(
    logits: Tensor, labels: Tensor, available: Tensor | None = None, process_group: ProcessGroup | None = None
) -> Tensor:
    """Soft Dice loss whose denominator sums the squares of the probabilities o, with y the one-hot labels.

    `1 - (1 / C) * sum_c 2 * sum o_c y_c / (sum o_c^2 + sum y_c + 1e-7)`, sums over the whole batch, as in the authors'
    training code of RobustSeg (Chen et al., MICCAI 2019). U-HVED's (Dorent et al., MICCAI 2019) is that of each sample,
    with 1e-5 in numerator and denominator.

    Args:
        logits: `[B, C, *spatial]`, floating point.
        labels: `[B, *spatial]` category indices.
        available: `[B]` bool, the samples that count; None: all.
        process_group: sum over the batches of all its processes, differentiably; None: over this one.

    Returns:
        0-dim, float32 (float64 for float64).
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    counted = torch.ones(len(logits), dtype=torch.bool, device=logits.device) if available is None else available
    probabilities = torch.softmax(logits.flatten(2), dim=1, dtype=dtype) * counted[:, None, None]
    labels = labels.flatten(1)
    sums = []
    for category, predicted in enumerate(probabilities.unbind(1)):
        truth = (labels == category) & counted[:, None]
        sums.append(torch.stack([(predicted * truth).sum(), predicted.square().sum() + truth.sum()]))
    overlap, total = _over_processes(torch.stack(sums), process_group).unbind(1)
    return 1 - (2 * overlap / (total + _SMOOTHING)).mean()


def plain_cross_entropy(
    logits: Tensor, labels: Tensor, available: Tensor | None = None, process_group: ProcessGroup | None = None
) -> Tensor:
    """Cross-entropy whose categories all weigh alike, the mean over all voxels, as in the training code of U-HVED.

    Arguments and result are those of `squared_dice`.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    voxels = functional.cross_entropy(logits.to(dtype), labels.long(), reduction="none")
    counted = torch.ones_like(voxels) if available is None else _like(available.to(dtype), voxels)
    total, count = _over_processes(torch.stack([(voxels * counted).sum(), counted.sum()]), process_group)
    mean: Tensor = total / count.clamp(min=1)
    return mean


def _like(values: Tensor, voxels: Tensor) -> Tensor:
    """`[B]` as `[B, *spatial]`."""
    return values.view(-1, *[1] * (voxels.dim() - 1)).expand_as(voxels)


def _over_processes(sums: Tensor, process_group: ProcessGroup | None) -> Tensor:
    if process_group is None:
        return sums
    added: Tensor = all_reduce(sums, group=process_group)  # type: ignore[no-untyped-call]
    return added
