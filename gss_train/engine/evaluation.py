"""Segment whole volumes from every subset of the modalities, and score them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gss_train.data import MODALITY_SUBSETS, REGIONS, Dataset, PreparedSubject
from gss_train.metrics import SCORES, region_dice
from gss_train.models import SegmentationNetwork

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class SubsetScores:
    """Dice of every held-out subject from every subset of the modalities.

    Attributes:
        subjects: names.
        names: of the scores, the first of `gss_train.metrics.SCORES`.
        dice: float64 `[subjects, 15, scores]`, subsets as in `MODALITY_SUBSETS`; NaN for a subset with a scan that the
            subject lacks.
    """

    subjects: tuple[str, ...]
    names: tuple[str, ...]
    dice: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean over the subjects that have the subset's scans, `[15, scores]`; NaN where none has."""
        return self.dice.nanmean(dim=0)

    @property
    def overall(self) -> Tensor:
        """Mean of `mean` over the subsets, `[scores]`."""
        return self.mean.nanmean(dim=0)


def evaluate_subsets(
    network: SegmentationNetwork,
    subjects: Sequence[PreparedSubject],
    dataset: Dataset,
    crop_size: Triple,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> SubsetScores:
    """Score the network on whole subjects, each with all of the 15 subsets that it has the scans for.

    ET post-processed, which counts voxels, is left out unless all subjects have BraTS's voxels of 1 mm.

    Source: the evaluation protocol of RFNet (Ding et al., ICCV 2021).

    Args:
        network: in evaluation mode, on `device`.
        subjects: held out from training, each at least as large as the crop.
        dataset: for the regions.
        crop_size: voxels of the sliding window.
        device: to compute on.
        progress: called with the number of finished subjects and that of all.
    """
    dice = []
    progress(0, len(subjects))
    for number, subject in enumerate(subjects):
        image, label = read_subject(subject)
        possible = torch.tensor([_has(subject, subset) for subset in MODALITY_SUBSETS])
        subsets = list(itertools.compress(MODALITY_SUBSETS, possible.tolist()))
        prediction = segment_subsets(network, image.to(device), crop_size, subsets)
        scores = torch.full((len(MODALITY_SUBSETS), len(SCORES)), torch.nan, dtype=torch.float64)
        scores[possible] = region_dice(prediction, label.to(device).expand_as(prediction), dataset).cpu()
        dice.append(scores)
        progress(number + 1, len(subjects))
    names = SCORES if all(_has_millimetre_voxels(subject) for subject in subjects) else REGIONS
    return SubsetScores(tuple(subject.name for subject in subjects), names, torch.stack(dice)[..., : len(names)])


def _has(subject: PreparedSubject, subset: Sequence[bool]) -> bool:
    return all(exists or not wanted for exists, wanted in zip(subject.available, subset, strict=True))


def _has_millimetre_voxels(subject: PreparedSubject) -> bool:
    return all(math.isclose(length, 1, rel_tol=0.01) for length in subject.metadata.spacing)


def read_subject(subject: PreparedSubject) -> tuple[Tensor, Tensor]:
    """All of a prepared subject: image `[4, D, H, W]` float32 and label `[D, H, W]` uint8."""
    image, label = subject.crop((0, 0, 0), subject.shape)
    return torch.from_numpy(image.astype(np.float32)), torch.from_numpy(label)


@torch.inference_mode()
def segment_subsets(
    network: SegmentationNetwork, image: Tensor, crop_size: Triple, subsets: Sequence[Sequence[bool]]
) -> Tensor:
    """Segment one volume from several subsets of its modalities.

    Windows of the crop size overlap by half, and their probabilities are averaged uniformly. The encoders run once
    per window, only the fusion once per subset.

    Args:
        network: in evaluation mode.
        image: `[4, D, H, W]`, each axis at least the crop's.
        crop_size: voxels of the window.
        subsets: one flag per modality for each of S subsets.

    Returns:
        Category indices, `[S, D, H, W]` uint8.
    """
    flags = torch.tensor(subsets, dtype=torch.bool, device=image.device)
    total: Tensor | None = None
    for window in _windows(image.shape[1:], crop_size):
        features = network.encode(image[:, *window][None])
        for number, subset in enumerate(flags):
            probabilities = torch.softmax(network.fuse(features, subset[None])[0].float(), dim=0)
            if total is None:
                total = torch.zeros(
                    (len(flags), len(probabilities), *image.shape[1:]), dtype=torch.float32, device=image.device
                )
            # The sum will do: dividing a voxel's sums by its number of windows does not change which is largest.
            total[number][:, *window] += probabilities
    assert total is not None
    return torch.stack([probabilities.argmax(dim=0).to(torch.uint8) for probabilities in total])


def _windows(shape: Sequence[int], crop_size: Triple) -> Iterator[tuple[slice, ...]]:
    starts = (_window_starts(length, crop) for length, crop in zip(shape, crop_size, strict=True))
    for corner in itertools.product(*starts):
        yield tuple(slice(start, start + crop) for start, crop in zip(corner, crop_size, strict=True))


def _window_starts(length: int, crop: int) -> list[int]:
    """Where windows start on one axis: every half crop, and one that ends with the volume."""
    if length < crop:
        raise ValueError(f"image: got an axis of {length} voxels, need at least the crop's {crop}")
    step = max(1, crop // 2)
    steps = math.ceil((length - crop) / step)
    return [step * number for number in range(steps)] + [length - crop]
