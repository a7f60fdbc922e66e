"""Which runs belong together, and how they differ in Dice."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gss_train.evaluation import bootstrap_interval, with_mean_over_subsets
from gss_train.report.runs import BASELINE, GSS, LONGER_BASELINE, ReportedRun
from gss_train.runs import VoteRecord

Floats = npt.NDArray[np.float64]

_EVALUATED = ("weights", "part", "split", "crop_size", "spacing", "weighting", "flips", "precision")
# Where a run computes and what it writes; and what differs with the seed.
_INDIFFERENT = ("data.workers", "data.cache", "run.", "record.", "training.compile", "training.init_from")


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        label: for people; in a report no other group has it.
        runs: one at least, by seed.
    """

    label: str
    runs: tuple[ReportedRun, ...]

    @property
    def first(self) -> ReportedRun:
        """Which stands for all where they are alike."""
        return self.runs[0]

    @property
    def columns(self) -> tuple[tuple[str, ...], tuple[tuple[bool, ...], ...]]:
        """The regions and subsets that it has scores of."""
        return self.first.evaluation.scores.names, self.first.evaluation.scores.subsets

    def mean_of(self, measure: str) -> Floats | None:
        """Means over subjects and runs `[subsets + 1, regions]`, the last over the subsets; None if a run has none."""
        tables = self._means_of(measure)
        return np.mean(tables, axis=0) if tables else None

    def spread_of(self, measure: str) -> Floats | None:
        """Standard deviation of the runs' means, like `mean_of`; None with fewer than two."""
        tables = self._means_of(measure)
        return np.std(tables, axis=0, ddof=1) if len(tables) > 1 else None

    @property
    def votes(self) -> list[VoteRecord]:
        """What the vote knew at the end of each run that had one at a validation."""
        every = [[record.vote for record in run.validations if record.vote is not None] for run in self.runs]
        return [votes[-1] for votes in every if votes]

    def _means_of(self, measure: str) -> list[Floats]:
        """Of each run; none if a run was not measured."""
        every = [run.evaluation.scores for run in self.runs]
        return [s.means_of(measure).numpy() for s in every] if all(measure in s.measures for s in every) else []


@dataclass(frozen=True)
class Difference:
    """How much higher the Dice of one group is than that of another, on the same subjects with the same seeds.

    Attributes:
        reference: what it is compared with.
        other: what is compared.
        pairs: how many pairs of runs.
        subjects: that both have scores of, how many.
        mean: over subjects and pairs, `[subsets + 1, regions]`, the last row over the subsets.
        low: lower ends of 95 % intervals over subjects, of the mean over the pairs.
        high: upper ends.
        spread: standard deviation of the mean difference over the pairs; None with fewer than two.
    """

    reference: Group
    other: Group
    pairs: int
    subjects: int
    mean: Floats
    low: Floats
    high: Floats
    spread: Floats | None

    @property
    def is_clear(self) -> npt.NDArray[np.bool_]:
        """Whether an interval excludes 0."""
        clear: npt.NDArray[np.bool_] = (self.low > 0) | (self.high < 0)
        return clear


def group_runs(runs: Sequence[ReportedRun]) -> list[Group]:
    """Put runs together that differ in nothing but the seed, in the order in which they come first."""
    together: dict[str, list[ReportedRun]] = {}
    for run in runs:
        together.setdefault(_kind(run), []).append(run)
    groups = [sorted(members, key=lambda run: run.seed or 0) for members in together.values()]
    several = len({run.network for run in runs}) > 1
    labels = [f"{run.network}, {run.arm}" if several and run.settings else run.arm for run, *_ in groups]
    return [
        Group(label if labels.count(label) == 1 else f"{label} ({members[0].name})", tuple(members))
        for label, members in zip(labels, groups, strict=True)
    ]


def compare(groups: Sequence[Group]) -> tuple[list[Difference], list[str]]:
    """Compare the groups of each network with its baseline, GSS also with a longer one; others with the first group.

    Returns:
        Differences, and for each pair of groups that cannot be compared the reason.
    """
    differences, reasons = [], []
    for reference, other in _pairs(groups):
        found = _difference(reference, other)
        if isinstance(found, Difference):
            differences.append(found)
        else:
            reasons.append(f"{other.label} cannot be compared with {reference.label}: {found}.")
    return differences, reasons


def _pairs(groups: Sequence[Group]) -> list[tuple[Group, Group]]:
    pairs = []
    for network in dict.fromkeys(group.first.network for group in groups):
        own = [group for group in groups if group.first.network == network]
        baselines = [group for group in own if group.first.arm == BASELINE][:1]
        longer = [group for group in own if group.first.arm == LONGER_BASELINE]
        pairs += [(baseline, other) for baseline in baselines for other in own if other is not baseline]
        pairs += [(group, other) for group in longer for other in own if other.first.arm == GSS]
    return pairs or [(groups[0], other) for other in groups[1:]]


def _kind(run: ReportedRun) -> str:
    if not run.settings:
        return run.name
    settings = {key: value for key, value in run.settings.items() if not key.startswith(_INDIFFERENT)}
    evaluated = {name: run.evaluation.settings.get(name) for name in _EVALUATED}
    return f"{sorted(settings.items())} {run.arm} {evaluated}"


def _difference(reference: Group, other: Group) -> Difference | str:
    first, second = reference.first.evaluation, other.first.evaluation
    if first.dataset.regions != second.dataset.regions or first.scores.names != second.scores.names:
        return "their regions are not the same"
    if first.scores.subsets != second.scores.subsets:
        return "their subsets of the modalities are not the same"
    pairs = _pair_runs(reference, other)
    if not pairs:
        return "no two runs have the same seed"
    every = [set(run.evaluation.scores.subjects) for pair in pairs for run in pair]
    common = sorted(set.intersection(*every))
    if not common:
        return "they have no subject in common"
    by_pair = torch.stack([_dice(later, common) - _dice(earlier, common) for earlier, later in pairs])
    low, high = bootstrap_interval(by_pair.mean(dim=0).numpy())
    means: Floats = by_pair.nanmean(dim=1).numpy()
    spread = means.std(axis=0, ddof=1) if len(pairs) > 1 else None
    return Difference(reference, other, len(pairs), len(common), means.mean(axis=0), low, high, spread)


def _pair_runs(reference: Group, other: Group) -> list[tuple[ReportedRun, ReportedRun]]:
    """Of the same seed; single runs are a pair whatever their seeds are."""
    pairs = [
        (earlier, later)
        for earlier, later in itertools.product(reference.runs, other.runs)
        if earlier.seed is not None and earlier.seed == later.seed
    ]
    if not pairs and len(reference.runs) == len(other.runs) == 1:
        return [(reference.first, other.first)]
    return pairs


def _dice(run: ReportedRun, subjects: Sequence[str]) -> Tensor:
    """Dice `[subjects, subsets + 1, regions]`, the last row over the subsets."""
    scores = run.evaluation.scores
    return with_mean_over_subsets(scores.dice[[scores.subjects.index(name) for name in subjects]])
