"""Score a network on whole subjects, from subsets of the modalities."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gss_train.common import ALONE, Processes
from gss_train.data import MODALITY_SUBSETS, REGIONS, Box, Dataset, PreparedSubject, Spacing, most_probable
from gss_train.evaluation.metrics import SCORES, region_measures
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.inference import SlidingWindow, segment_subsets, subset_probabilities
from gss_train.models import Features, SegmentationNetwork

Keep = Callable[[PreparedSubject, Tensor, Tensor, Tensor], None]
OnSubjectWindow = Callable[[PreparedSubject, Box, Features], None]


def evaluate_subsets(
    network: SegmentationNetwork,
    subjects: Sequence[PreparedSubject],
    dataset: Dataset,
    window: SlidingWindow,
    device: torch.device,
    progress: Callable[[int, int], None],
    *,
    subsets: Sequence[Sequence[bool]] = MODALITY_SUBSETS,
    processes: Processes = ALONE,
    measures: Collection[str] = ("dice",),
    keep: Keep | None = None,
    on_window: OnSubjectWindow | None = None,
) -> SubsetScores:
    """Score the network on whole subjects, each with all of the subsets that it has the scans for.

    Scores are of the label's own voxels: where scans were brought to others, the probabilities are brought back.

    ET post-processed, which counts voxels, is left out unless all subjects have BraTS's voxels of 1 mm.

    Source: the evaluation protocol of RFNet (Ding et al., ICCV 2021).

    Args:
        network: in evaluation mode, on `device`, with the same weights in all processes.
        subjects: held out from training; the same in all processes. Where the window is larger, they are padded to it.
        dataset: for the regions.
        window: that slides over each of them.
        device: to compute on.
        progress: called with the number of subjects that this process has finished and that of all it is to do.
        subsets: one flag per modality for each.
        processes: that share the work: subject number n is that of process n modulo their number.
        measures: of `gss_train.evaluation.metrics.MEASURES`, "dice" at least.
        keep: called with each of this process's subjects, its image `[4, D, H, W]`, label `[D, H, W]` and predictions
            `[S, D, H, W]`, on the CPU, of the voxels that the network sees; predictions of subsets that the subject
            lacks a scan of are background.
        on_window: called with each of this process's subjects, the boxes of its windows in its image, and what the
            encoders made of each; before `keep`, and not at all for a subject without the scans of any subset.

    Returns:
        The scores of all subjects, the same in every process.
    """
    scores = torch.zeros(len(subjects), len(measures), len(subsets), len(SCORES), dtype=torch.float64)
    own = range(processes.rank, len(subjects), processes.size)
    progress(0, len(own))
    for done, number in enumerate(own, start=1):
        subject = subjects[number].padded_to(window.crop_size)
        image, label = read_subject(subject)
        possible = [place for place, subset in enumerate(subsets) if _has(subject, subset)]
        predictions = torch.zeros(len(subsets), *label.shape, dtype=torch.uint8)
        scores[number] = torch.nan
        if possible:
            wanted = [subsets[place] for place in possible]
            given, compared = _segment(network, subject, image.to(device), window, wanted, on_window)
            predictions[possible] = given.cpu()
            truth = _truth(subject, label).to(device)
            for place, prediction in zip(possible, compared, strict=True):
                found = region_measures(prediction.to(device), truth, dataset, _truth_spacing(subject), measures)
                scores[number, :, place] = torch.stack([found[measure].cpu() for measure in measures])
        if keep is not None:
            keep(subject, image, label, predictions)
        progress(done, len(own))
    # Each row has one process that added anything but 0 to it, so that the sum is exact.
    scores = processes.sum(scores)
    names = SCORES if all(_has_millimetre_voxels(subject) for subject in subjects) else REGIONS
    return SubsetScores(
        tuple(subject.name for subject in subjects),
        names,
        {measure: scores[:, place, :, : len(names)] for place, measure in enumerate(measures)},
        tuple(tuple(subset) for subset in subsets),
    )


def _segment(
    network: SegmentationNetwork,
    subject: PreparedSubject,
    image: Tensor,
    window: SlidingWindow,
    subsets: Sequence[Sequence[bool]],
    on_window: OnSubjectWindow | None,
) -> tuple[Tensor, Iterable[Tensor]]:
    """Category indices from each subset: of the voxels that the network sees, and of those that have the truth."""
    own, watch = subject.metadata.truth, None if on_window is None else partial(on_window, subject)
    if own is None:
        given = segment_subsets(network, image, window, subsets, on_window=watch)
        return given, given
    probabilities = subset_probabilities(network, image, window, subsets, on_window=watch)
    grid, given = subject.grid, torch.stack([part.argmax(dim=0).to(torch.uint8) for part in probabilities])
    # One after the other: the label's voxels may be many.
    return given, (torch.from_numpy(most_probable(part.numpy(), grid, own.grid)) for part in probabilities)


def _truth(subject: PreparedSubject, label: Tensor) -> Tensor:
    return label if subject.metadata.truth is None else torch.from_numpy(subject.truth())


def _truth_spacing(subject: PreparedSubject) -> Spacing:
    metadata = subject.metadata
    return metadata.spacing if metadata.truth is None else metadata.truth.grid.spacing


def _has(subject: PreparedSubject, subset: Sequence[bool]) -> bool:
    return all(exists or not wanted for exists, wanted in zip(subject.available, subset, strict=True))


def _has_millimetre_voxels(subject: PreparedSubject) -> bool:
    return all(math.isclose(length, 1, rel_tol=0.01) for length in _truth_spacing(subject))


def read_subject(subject: PreparedSubject) -> tuple[Tensor, Tensor]:
    """All of a prepared subject: image `[4, D, H, W]` float32 and label `[D, H, W]` uint8."""
    image, label = subject.crop((0, 0, 0), subject.shape)
    return torch.from_numpy(image.astype(np.float32)), torch.from_numpy(label)
