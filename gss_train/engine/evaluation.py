"""Segment whole volumes from subsets of the modalities, and score them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gss_train.data import MODALITY_SUBSETS, REGIONS, Dataset, PreparedSubject
from gss_train.engine.processes import ALONE, Processes
from gss_train.metrics import SCORES, region_dice
from gss_train.models import SegmentationNetwork

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class SubsetScores:
    """Dice of every held-out subject from subsets of the modalities.

    Attributes:
        subjects: names.
        names: of the scores, the first of `gss_train.metrics.SCORES`.
        dice: float64 `[subjects, subsets, scores]`; NaN for a subset with a scan that the subject lacks.
        subsets: one flag per modality for each of them.
    """

    subjects: tuple[str, ...]
    names: tuple[str, ...]
    dice: Tensor
    subsets: tuple[tuple[bool, ...], ...] = MODALITY_SUBSETS

    @property
    def mean(self) -> Tensor:
        """Mean over the subjects that have the subset's scans, `[subsets, scores]`; NaN where none has."""
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
    *,
    subsets: Sequence[Sequence[bool]] = MODALITY_SUBSETS,
    processes: Processes = ALONE,
) -> SubsetScores:
    """Score the network on whole subjects, each with all of the subsets that it has the scans for.

    ET post-processed, which counts voxels, is left out unless all subjects have BraTS's voxels of 1 mm.

    Source: the evaluation protocol of RFNet (Ding et al., ICCV 2021).

    Args:
        network: in evaluation mode, on `device`, with the same weights in all processes.
        subjects: held out from training, each at least as large as the crop; the same in all processes.
        dataset: for the regions.
        crop_size: voxels of the sliding window.
        device: to compute on.
        progress: called with the number of subjects that this process has finished and that of all it is to do.
        subsets: one flag per modality for each.
        processes: that share the work: subject number n is that of process n modulo their number.

    Returns:
        The scores of all subjects, the same in every process.
    """
    dice = torch.zeros(len(subjects), len(subsets), len(SCORES), dtype=torch.float64)
    own = range(processes.rank, len(subjects), processes.size)
    progress(0, len(own))
    for done, number in enumerate(own, start=1):
        dice[number] = _score_subject(network, subjects[number], dataset, crop_size, device, subsets)
        progress(done, len(own))
    # Each row has one process that added anything but 0 to it, so that the sum is exact.
    dice = processes.sum(dice)
    names = SCORES if all(_has_millimetre_voxels(subject) for subject in subjects) else REGIONS
    return SubsetScores(
        tuple(subject.name for subject in subjects),
        names,
        dice[..., : len(names)],
        tuple(tuple(subset) for subset in subsets),
    )


def _score_subject(
    network: SegmentationNetwork,
    subject: PreparedSubject,
    dataset: Dataset,
    crop_size: Triple,
    device: torch.device,
    subsets: Sequence[Sequence[bool]],
) -> Tensor:
    """Dice `[subsets, scores]` of one subject, NaN for the subsets that it lacks a scan of."""
    scores = torch.full((len(subsets), len(SCORES)), torch.nan, dtype=torch.float64)
    possible = [_has(subject, subset) for subset in subsets]
    if any(possible):
        image, label = read_subject(subject)
        given = list(itertools.compress(subsets, possible))
        prediction = segment_subsets(network, image.to(device), crop_size, given)
        truth = label.to(device).expand_as(prediction)
        scores[torch.tensor(possible)] = region_dice(prediction, truth, dataset).cpu()
    return scores


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and afterwards each of its modules back into the mode that it had."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


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
