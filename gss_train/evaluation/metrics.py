"""How well a predicted and a true label volume agree, by region."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gss_train.data import DATASETS, REGIONS, Dataset

SCORES = (*REGIONS, "ET post-processed")
_SMOOTHING = 1e-8
_SMALLEST_ET_VOXELS = 500
# As far as two voxels of 240 x 240 x 155 at 1 mm can be apart.
_FARTHEST_MM = 373.13
_AXES = (-3, -2, -1)


@dataclass(frozen=True)
class Measure:
    """What a measure is, and how people read its numbers.

    Attributes:
        title: with the unit in which it is shown.
        compute: takes masks of the predicted and the true region, and the millimetres from voxel to voxel.
        unit: of its numbers as they are computed and stored.
        shown_times: what they are multiplied by to be shown.
        lower_is_better: else higher is.
    """

    title: str
    compute: Callable[[Tensor, Tensor, Sequence[float]], Tensor]
    unit: str = "1"
    shown_times: int = 100
    lower_is_better: bool = False

    def show(self, value: float, digits: int, *, signed: bool = False) -> str:
        """A number, or a difference of two, as text; a dash for NaN."""
        if math.isnan(value):
            return "-"
        # Rounding first, and adding 0, leaves no minus before a zero.
        rounded = round(self.shown_times * value, digits) + 0.0
        return f"{rounded:{'+' if signed else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


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
    return region_measures(prediction, truth, dataset, (1, 1, 1), ["dice"])["dice"]


def region_measures(
    prediction: Tensor,
    truth: Tensor,
    dataset: Dataset | str,
    spacing: Sequence[float],
    measures: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """How well WT, TC, ET and ET post-processed agree, by several measures.

    - dice: see `region_dice`.
    - hd95_mm: the larger of the two 95th percentiles of the distances from one surface to the other, in millimetres
      (MONAI's). 0 where both regions are empty; where one is, 373.13 mm, the diagonal of a BraTS volume, as the BraTS
      challenges count it.
    - sensitivity: `|A and B| / |B|`, the share of the true region that is found; 1 where the true region is empty.
    - precision: `|A and B| / |A|`, the share of the predicted region that is true; where that is empty, 1 if the true
      region is empty too, else 0.

    Args:
        prediction: category indices in training order, `[D, H, W]` or `[B, D, H, W]`, an integer dtype.
        truth: the same for the reference labels.
        dataset: a data set or its name, for what belongs to each region.
        spacing: millimetres from voxel to voxel along D, H and W.
        measures: which to compute, of `MEASURES`; None for all.

    Returns:
        For each of them float64 `[4]`, or `[B, 4]` for batched volumes, in the order of `SCORES`.

    Raises:
        ValueError: shapes or dtypes that do not fit, an unknown data set or measure.
    """
    measures = MEASURES if measures is None else measures
    unknown = set(measures) - set(MEASURES)
    if unknown:
        raise ValueError(f"measures: got {', '.join(sorted(unknown))}, need some of {', '.join(MEASURES)}")
    *regions, changed = _regions(prediction, truth, dataset)
    # Where the post-processing changed nothing, as it usually does, its scores are those of ET: distances take long.
    is_same = torch.equal(regions[-1][0], changed[0])
    found = {}
    for name in measures:
        compute = MEASURES[name].compute
        scores = [compute(*region, spacing) for region in regions]
        found[name] = torch.stack([*scores, scores[-1] if is_same else compute(*changed, spacing)], dim=-1)
    return found


def _regions(prediction: Tensor, truth: Tensor, dataset: Dataset | str) -> list[tuple[Tensor, Tensor]]:
    """Masks of the predicted and the true region for each of `SCORES`."""
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
    # Regions have no background: what lies around the tumour does not count.
    x, y, z = _box_around(((prediction != 0) | (truth != 0)).reshape(-1, *truth.shape[-3:]).any(dim=0))
    prediction, truth = prediction[..., x, y, z], truth[..., x, y, z]
    regions = [
        (_in_region(prediction, dataset.regions[region]), _in_region(truth, dataset.regions[region]))
        for region in REGIONS
    ]
    predicted_et, true_et = regions[REGIONS.index("ET")]
    large_enough = predicted_et.sum(dim=_AXES, keepdim=True) >= _SMALLEST_ET_VOXELS
    return [*regions, (predicted_et & large_enough, true_et)]


def _in_region(volume: Tensor, categories: tuple[int, ...]) -> Tensor:
    return torch.isin(volume, torch.tensor(categories, dtype=volume.dtype, device=volume.device))


def _count(mask: Tensor) -> Tensor:
    return mask.sum(dim=_AXES).double()


def _dice(predicted: Tensor, true: Tensor, spacing: Sequence[float]) -> Tensor:  # noqa: ARG001  (as all measures)
    return (2 * _count(predicted & true) + _SMOOTHING) / (_count(predicted) + _count(true) + _SMOOTHING)


def _sensitivity(predicted: Tensor, true: Tensor, spacing: Sequence[float]) -> Tensor:  # noqa: ARG001
    found, total = _count(predicted & true), _count(true)
    return torch.where(total > 0, found / total, 1.0)


def _precision(predicted: Tensor, true: Tensor, spacing: Sequence[float]) -> Tensor:  # noqa: ARG001
    found, total = _count(predicted & true), _count(predicted)
    return torch.where(total > 0, found / total, (_count(true) == 0).double())


def _hd95_mm(predicted: Tensor, true: Tensor, spacing: Sequence[float]) -> Tensor:
    if predicted.dim() == 4:
        return torch.stack([_hd95_mm(*pair, spacing) for pair in zip(predicted, true, strict=True)])
    if not predicted.any() or not true.any():
        farthest = 0.0 if predicted.any() == true.any() else _FARTHEST_MM
        return torch.tensor(farthest, dtype=torch.float64, device=true.device)
    # Here, so that what only needs Dice, such as a training, does not wait for it.
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance  # noqa: PLC0415

    box = _box_around(predicted | true)
    with warnings.catch_warnings():
        # MONAI warns of an argument that MONAI itself passes.
        warnings.simplefilter("ignore", FutureWarning)
        distance: Tensor = compute_hausdorff_distance(
            predicted[box][None, None],
            true[box][None, None],
            include_background=True,
            percentile=95,
            spacing=[float(length) for length in spacing],
        )
    return distance.double().reshape(()).to(true.device)


def _box_around(mask: Tensor) -> tuple[slice, slice, slice]:
    """The smallest box that has all of a mask `[D, H, W]`; of an empty one, one without voxels."""
    box = []
    for axis in range(3):
        positions = mask.any(dim=(axis + 1) % 3, keepdim=True).any(dim=(axis + 2) % 3, keepdim=True).flatten().nonzero()
        box.append(slice(int(positions[0]), int(positions[-1]) + 1) if len(positions) else slice(0, 0))
    x, y, z = box
    return x, y, z


MEASURES = {
    "dice": Measure("Dice (%)", _dice),
    "hd95_mm": Measure("95th percentile of the Hausdorff distance (mm)", _hd95_mm, "mm", 1, lower_is_better=True),
    "sensitivity": Measure("Sensitivity (%)", _sensitivity),
    "precision": Measure("Precision (%)", _precision),
}
"""All measures, by the names that scores are kept by."""
