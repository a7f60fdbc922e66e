"""Score a network on whole subjects, from subsets of the modalities."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gss_train.data import MODALITY_SUBSETS, REGIONS, Dataset, PreparedSubject
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.inference.segmentation import segment_subsets
from gss_train.inference.windows import Triple
from gss_train.metrics import SCORES, region_dice
from gss_train.models import SegmentationNetwork
from gss_train.processes import ALONE, Processes


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
        {"dice": dice[..., : len(names)]},
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


def _has(subject: PreparedSubject, subset: Sequence[bool]) -> bool:
    return all(exists or not wanted for exists, wanted in zip(subject.available, subset, strict=True))


def _has_millimetre_voxels(subject: PreparedSubject) -> bool:
    return all(math.isclose(length, 1, rel_tol=0.01) for length in subject.metadata.spacing)


def read_subject(subject: PreparedSubject) -> tuple[Tensor, Tensor]:
    """All of a prepared subject: image `[4, D, H, W]` float32 and label `[D, H, W]` uint8."""
    image, label = subject.crop((0, 0, 0), subject.shape)
    return torch.from_numpy(image.astype(np.float32)), torch.from_numpy(label)
