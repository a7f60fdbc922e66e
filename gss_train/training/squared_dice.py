"""The Dice loss that RobustSeg was published with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.nn.functional import all_reduce

_SMOOTHING = 1e-7


def squared_dice(
    logits: Tensor, labels: Tensor, available: Tensor | None = None, process_group: ProcessGroup | None = None
) -> Tensor:
    """Soft Dice loss whose denominator sums the squares of the probabilities o, with y the one-hot labels.

    `1 - (1 / C) * sum_c 2 * sum o_c y_c / (sum o_c^2 + sum y_c + 1e-7)`, sums over the whole batch, as in the authors'
    training code of RobustSeg (Chen et al., MICCAI 2019).

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


def _over_processes(sums: Tensor, process_group: ProcessGroup | None) -> Tensor:
    if process_group is None:
        return sums
    added: Tensor = all_reduce(sums, group=process_group)  # type: ignore[no-untyped-call]
    return added
