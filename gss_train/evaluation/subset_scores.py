"""What an evaluation comes to: a table of scores for each measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gss_train.data import MODALITY_SUBSETS


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

    def mean_of(self, measure: str) -> Tensor:
        """Mean over the subjects that have the subset's scans, `[subsets, names]`; NaN where none has."""
        return self.measures[measure].nanmean(dim=0)

    def overall_of(self, measure: str) -> Tensor:
        """Mean of `mean_of` over the subsets, `[names]`."""
        return self.mean_of(measure).nanmean(dim=0)

    @property
    def mean(self) -> Tensor:
        """`mean_of` Dice."""
        return self.mean_of("dice")

    @property
    def overall(self) -> Tensor:
        """`overall_of` Dice."""
        return self.overall_of("dice")
