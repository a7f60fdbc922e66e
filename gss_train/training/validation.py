"""Validation while a run trains: a few subjects and subsets, the best so far, and when to stop a stage early."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gss_kernels import GSSSettings
from gss_train.common import ALONE, Meter, Processes, Triple
from gss_train.data import MODALITY_SUBSETS, REGIONS, Dataset, PreparedSubject, subset_name
from gss_train.evaluation import evaluate_subsets
from gss_train.inference import SlidingWindow, evaluation_mode
from gss_train.models import SegmentationNetwork
from gss_train.runs import ValidationRecord
from gss_train.training.objective import PUBLISHED_VOTE
from gss_train.training.vote import VoteCount

FEW_SUBSETS = tuple(subset for subset in MODALITY_SUBSETS if sum(subset) in {1, len(subset)})
"""Each modality alone, and all four, in the order of `MODALITY_SUBSETS`."""


def validation_subsets(name: Literal["few", "all"]) -> tuple[tuple[bool, ...], ...]:
    """The subsets of the setting `validation_subsets`."""
    return {"few": FEW_SUBSETS, "all": MODALITY_SUBSETS}[name]


def keep_quiet(done: int, total: int, note: str = "") -> None:
    """No progress is shown: validations are short, and one among many."""


class ValidationSubjects(NamedTuple):
    """Subjects that are neither trained nor tested on.

    Attributes:
        often: validated on every so many epochs.
        at_stage_ends: validated on at the ends of stages.
    """

    often: Sequence[PreparedSubject] = ()
    at_stage_ends: Sequence[PreparedSubject] = ()


@dataclass(frozen=True)
class ValidationState:
    """What the validations of a run so far come to.

    A stage begins with a fresh optimiser and may fall behind the stage before it for a while, so that patience goes by
    the best of the stage.

    Attributes:
        best_dice: highest mean Dice of the run, None before the first.
        best_dice_of_stage: that of the current stage.
        without_improvement: validations of the current stage since its best.
    """

    best_dice: float | None = None
    best_dice_of_stage: float | None = None
    without_improvement: int = 0

    def update(self, mean_dice: float | None) -> ValidationState:
        """The state after one more validation; one without a Dice (None) changes nothing."""
        if mean_dice is None:
            return self
        best = mean_dice if self.best_dice is None else max(self.best_dice, mean_dice)
        if self.best_dice_of_stage is None or mean_dice > self.best_dice_of_stage:
            return ValidationState(best, mean_dice)
        return replace(self, best_dice=best, without_improvement=self.without_improvement + 1)

    def begin_stage(self) -> ValidationState:
        """The state at the beginning of a stage."""
        return ValidationState(self.best_dice)

    def should_stop(self, patience: int | None) -> bool:
        """Whether the stage had so many validations in a row without a better mean Dice; never with None."""
        return patience is not None and self.without_improvement >= patience


@torch.inference_mode()
def validate(
    network: SegmentationNetwork,
    subjects: Sequence[PreparedSubject],
    dataset: Dataset,
    crop_size: Triple,
    device: torch.device,
    *,
    stage: str,
    epoch: int,
    step: int,
    progress: Meter = keep_quiet,
    subsets: Sequence[Sequence[bool]] = FEW_SUBSETS,
    processes: Processes = ALONE,
    best_before: float | None = None,
    vote_settings: GSSSettings = PUBLISHED_VOTE,
) -> ValidationRecord:
    """Score the network on the validation subjects; its weights and modes are afterwards what they were.

    Args:
        network: in any mode, on `device`, with the same weights in all processes.
        subjects: to validate on, the same in all processes.
        dataset: for the regions.
        crop_size: voxels of the sliding window.
        device: to compute on.
        stage: name of the current stage, for the record.
        epoch: that was finished last, 1 for the first of the run.
        step: optimiser steps so far.
        progress: see `gss_train.evaluation.evaluate_subsets`; what it raises ends the validation.
        subsets: one flag per modality for each.
        processes: that share the work.
        best_before: highest mean Dice of the validations before, None if there was none.
        vote_settings: of the vote that the record tells of.

    Returns:
        The same in every process; its mean counts each Dice of a subject, subset and region (WT, TC and ET) alike. It
        says what the vote knows of networks with separate predictions, whether or not they learn from it.
    """
    vote = VoteCount(network, subjects, dataset, vote_settings, processes) if network.has_separate_predictions else None
    with evaluation_mode(network):
        scores = evaluate_subsets(
            network,
            subjects,
            dataset,
            SlidingWindow(crop_size),
            device,
            progress,
            subsets=subsets,
            processes=processes,
            keep=None if vote is None else vote.on_subject,
            on_window=None if vote is None else vote.on_window,
        )
    mean = _number(scores.dice[..., : len(REGIONS)].nanmean())
    return ValidationRecord(
        stage=stage,
        epoch=epoch,
        step=step,
        mean_dice=mean,
        dice={
            subset_name(subset): {name: _number(value) for name, value in zip(scores.names, values, strict=True)}
            for subset, values in zip(scores.subsets, scores.mean, strict=True)
        },
        best=mean is not None and (best_before is None or mean >= best_before),
        vote=None if vote is None else vote.record(),
    )


def _number(value: Tensor) -> float | None:
    """JSON has no NaN."""
    number = value.item()
    return None if math.isnan(number) else number
