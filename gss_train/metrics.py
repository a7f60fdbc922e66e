"""Overlap of a predicted and a true label volume, by region."""

from __future__ import annotations

import torch
from torch import Tensor

from gss_train.data.conventions import DATASETS, REGIONS, Dataset

SCORES = (*REGIONS, "ET post-processed")
_SMOOTHING = 1e-8
_SMALLEST_ET_VOXELS = 500


def region_dice(prediction: Tensor, truth: Tensor, dataset: Dataset | str) -> Tensor:
    """Dice of WT, TC, ET and ET post-processed, `(2 |A and B| + 1e-8) / (|A| + |B| + 1e-8)`.

    Post-processed: a predicted ET of fewer than 500 voxels is removed first. Two empty regions score 1.

    Source: the evaluation of RFNet (Ding et al., ICCV 2021) and GSS (Qiu et al., ICCV 2023).

    Args:
        prediction: category indices in training order, `[D, H, W]` or `[B, D, H, W]`, an integer dtype.
        truth: the same for the reference labels.
        dataset: a data set or its name, for what belongs to each region.

    Returns:
        float64 `[4]`, or `[B, 4]` for batched volumes, in the order of `SCORES`.

    Raises:
        ValueError: shapes or dtypes that do not fit, or an unknown data set.
    """
    if isinstance(dataset, str):
        if dataset not in DATASETS:
            raise ValueError(f"dataset: got {dataset!r}, need one of {', '.join(DATASETS)}")
        dataset = DATASETS[dataset]
    if prediction.shape != truth.shape or prediction.dim() not in {3, 4}:
        raise ValueError(
            f"prediction, truth: got shapes {tuple(prediction.shape)} and {tuple(truth.shape)}, "
            "need the same [D, H, W] or [B, D, H, W]"
        )
    for name, volume in (("prediction", prediction), ("truth", truth)):
        if volume.is_floating_point():
            raise ValueError(f"{name}: got {volume.dtype}, need integer category indices")
    regions = {
        region: tuple(_in_region(volume, dataset.regions[region]) for volume in (prediction, truth))
        for region in REGIONS
    }
    scores = [_dice(predicted, true) for predicted, true in regions.values()]
    predicted_et, true_et = regions["ET"]
    large_enough = predicted_et.sum(dim=(-3, -2, -1), keepdim=True) >= _SMALLEST_ET_VOXELS
    scores.append(_dice(predicted_et & large_enough, true_et))
    return torch.stack(scores, dim=-1)


def _in_region(volume: Tensor, categories: tuple[int, ...]) -> Tensor:
    return torch.isin(volume, torch.tensor(categories, dtype=volume.dtype, device=volume.device))


def _dice(predicted: Tensor, true: Tensor) -> Tensor:
    axes = (-3, -2, -1)
    overlap = (predicted & true).sum(dim=axes).double()
    total = (predicted.sum(dim=axes) + true.sum(dim=axes)).double()
    return (2 * overlap + _SMOOTHING) / (total + _SMOOTHING)
