"""What an evaluation comes to: a table of scores for each measure, and how they came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gss_train.data import MODALITY_SUBSETS, Dataset


@dataclass(frozen=True)
class SubsetScores:
    """Scores of every held-out subject from subsets of the modalities.

    Attributes:
        subjects: names.
        names: of the regions scored, the first of `gss_train.evaluation.metrics.SCORES`.
        measures: by the measure's name, of `gss_train.evaluation.metrics.MEASURES`, "dice" at least: float64
            `[subjects, subsets, names]`; NaN for a subset with a scan that the subject lacks.
        subsets: one flag per modality for each of them.
    """

    subjects: tuple[str, ...]
    names: tuple[str, ...]
    measures: Mapping[str, Tensor]
    subsets: tuple[tuple[bool, ...], ...] = MODALITY_SUBSETS

    @property
    def dice(self) -> Tensor:
        """Dice, `[subjects, subsets, names]`."""
        return self.measures["dice"]

    def means_of(self, measure: str) -> Tensor:
        """Means over the subjects that have a subset's scans, NaN where none has, and in the last row over the subsets.

        Returns:
            `[subsets + 1, names]`.
        """
        return with_mean_over_subsets(self.measures[measure].nanmean(dim=0))

    @property
    def mean(self) -> Tensor:
        """Mean Dice over the subjects, `[subsets, names]`."""
        return self.means_of("dice")[:-1]

    @property
    def overall(self) -> Tensor:
        """Mean of `mean` over the subsets, `[names]`."""
        return self.means_of("dice")[-1]


@dataclass(frozen=True)
class Evaluation:
    """The scores of a network and how they came about.

    Attributes:
        name: of the run.
        dataset: of the subjects.
        scores: of every subject and subset.
        settings: JSON values: "network", "weights", "part", "crop_size", "spacing", "weighting", "flips"; where known
            "split" and "trained_as_published" (see `split_settings`), "precision", "seconds" and "peak_memory_mb".
        fingerprint: of all that the scores depend on; empty where it is not known.
    """

    name: str
    dataset: Dataset
    scores: SubsetScores
    settings: Mapping[str, Any]
    fingerprint: str = ""


def with_mean_over_subsets(scores: Tensor) -> Tensor:
    """Append to `[..., subsets, names]` one more row: the mean over the subsets that are not NaN."""
    return torch.cat([scores, scores.nanmean(dim=-2, keepdim=True)], dim=-2)
