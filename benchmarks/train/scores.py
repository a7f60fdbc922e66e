"""What a network scores on held-out subjects as long as there is time, and their means, which are nobody's own."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gss_train.data import MODALITY_SUBSETS, Dataset, PreparedSubject, subset_name
from gss_train.evaluation import SubsetScores, evaluate_subsets
from gss_train.inference import SlidingWindow, evaluation_mode
from gss_train.models import SegmentationNetwork

# A mean over fewer would be somebody's own.
FEWEST_SCORED = 2


@dataclass(frozen=True)
class Scoring:
    """How a network is scored.

    Attributes:
        subjects: held-out ones, in the order in which they are taken.
        dataset: of all of them.
        window: that slides over each of them.
        device: of the network.
    """

    subjects: Sequence[PreparedSubject]
    dataset: Dataset
    window: SlidingWindow
    device: torch.device

    def seconds_per_subject(self, network: SegmentationNetwork) -> float:
        """What the largest subject takes, once the device has seen the network."""
        largest = max(self.subjects, key=lambda subject: math.prod(subject.shape))
        self._dice(network, largest, MODALITY_SUBSETS[:1])
        start = time.monotonic()
        self._dice(network, largest)
        return time.monotonic() - start

    def means(self, network: SegmentationNetwork, end: float) -> dict[str, Any]:
        """Mean Dice of WT, TC and ET by subset, and over the subsets.

        Args:
            network: to score.
            end: when to be over, by `time.monotonic`: no subject is begun that would not be, if it takes as long as the
                longest before it.
        """
        dice: list[SubsetScores] = []
        start = before = time.monotonic()
        longest = 0.0
        for subject in self.subjects:
            if before + longest > end:
                break
            dice.append(self._dice(network, subject))
            now = time.monotonic()
            before, longest = now, max(longest, now - before)
        return {"evaluation_seconds": before - start, "scored_subjects": len(dice)} | _means(dice)

    def _dice(
        self,
        network: SegmentationNetwork,
        subject: PreparedSubject,
        subsets: Sequence[Sequence[bool]] = MODALITY_SUBSETS,
    ) -> SubsetScores:
        with evaluation_mode(network):
            return evaluate_subsets(
                network, [subject], self.dataset, self.window, self.device, _keep_quiet, subsets=subsets
            )


def _means(scores: Sequence[SubsetScores]) -> dict[str, Any]:
    if len(scores) < FEWEST_SCORED:
        return {"dice": None, "dice_mean_over_subsets": None}
    together = SubsetScores(
        tuple(name for own in scores for name in own.subjects),
        scores[0].names,
        {"dice": torch.cat([own.dice for own in scores])},
    )
    rows = zip(together.subsets, together.mean, strict=True)
    return {
        "dice": {subset_name(subset): _by_name(together.names, row) for subset, row in rows},
        "dice_mean_over_subsets": _by_name(together.names, together.overall),
    }


def _by_name(names: Sequence[str], values: Tensor) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in zip(names, values.tolist(), strict=True)}


def _keep_quiet(done: int, total: int, note: str) -> None:
    """A subject takes seconds."""
