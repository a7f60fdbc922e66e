"""What steps leave on the device, fetched together now and then, so that no step waits for the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gss_kernels import GSSStatistics
from gss_train.common import ALONE, Processes
from gss_train.training.objective import ObjectiveTerms

TERMS = ObjectiveTerms._fields[:-1]
"""Names of the objective's scalars."""


class StepResult(NamedTuple):
    """What one step leaves on the device.

    Attributes:
        scalars: `[9]`: the objective's terms in the order of `TERMS`, the gradient's norm, whether the weights were
            left alone, and whether because of bad numbers; see `UpdateReport`.
        statistics: of the vote, if asked for.
    """

    scalars: Tensor
    statistics: GSSStatistics | None


class FetchedStep(NamedTuple):
    """A step's scalars on the host.

    Attributes:
        step: its number in the run, 0 for the first.
        terms: in the order of `TERMS`.
        gradient_norm: before clipping.
        skipped: whether the weights were left alone.
        bad: whether because of bad numbers.
    """

    step: int
    terms: tuple[float, ...]
    gradient_norm: float
    skipped: bool
    bad: bool


@dataclass
class Means:
    """Means over the steps that were finite, as sums, in plain numbers for a checkpoint.

    Attributes:
        sums: of the terms.
        steps: that were added.
        skipped: how many of them were not finite.
        gradient_norm: of the last finite one.
    """

    sums: list[float] = field(default_factory=lambda: [0.0] * len(TERMS))
    steps: int = 0
    skipped: int = 0
    gradient_norm: float | None = None

    def add(self, step: FetchedStep) -> None:
        """Take a step in."""
        self.steps += 1
        if step.skipped or not all(map(math.isfinite, step.terms)):
            self.skipped += 1
            return
        self.sums = [total + value for total, value in zip(self.sums, step.terms, strict=True)]
        self.gradient_norm = step.gradient_norm

    def terms(self) -> dict[str, float | None]:
        """The means by name; None without a finite step."""
        finite = self.steps - self.skipped
        return {name: total / finite if finite else None for name, total in zip(TERMS, self.sums, strict=True)}


class Gathered:
    """The steps since some moment, for records of some steps and of whole epochs.

    Args:
        processes: that train together; what they report is their mean.
    """

    def __init__(self, processes: Processes = ALONE) -> None:
        self._processes = processes
        self._pending: list[tuple[int, StepResult]] = []
        self._votes: list[list[Any]] = []
        self.recent = Means()
        self.epoch = Means()

    def add(self, step: int, result: StepResult) -> None:
        """Keep what a step left, without waiting for it."""
        self._pending.append((step, result))

    def fetch(self) -> list[FetchedStep]:
        """Wait for what is pending, and count it."""
        if not self._pending:
            return []
        rows = self._mean(torch.stack([result.scalars for _, result in self._pending]))
        fetched = []
        for (step, result), row in zip(self._pending, rows, strict=True):
            *terms, norm, skipped, bad = row
            fetched.append(FetchedStep(step, tuple(terms), norm, skipped > 0, bad > 0))
            if result.statistics is not None and not skipped:
                self._votes.append([self._mean(part) for part in result.statistics])
        self._pending.clear()
        for one in fetched:
            self.recent.add(one)
            self.epoch.add(one)
        return fetched

    def _mean(self, values: Tensor) -> list[Any]:
        total = self._processes.sum(values.detach().double().cpu())
        return (total / self._processes.size).tolist()

    def vote(self) -> dict[str, list[Any]] | None:
        """The mean statistics of the epoch's votes, None if there were none."""
        if not self._votes:
            return None
        routes, agreement = (
            torch.tensor(parts, dtype=torch.float64).mean(dim=0).tolist() for parts in zip(*self._votes, strict=True)
        )
        return {"routes": routes, "agreement": agreement}

    def begin_epoch(self) -> None:
        """Forget the last one."""
        self.epoch = Means()
        self._votes = []

    def begin_record(self) -> None:
        """Forget the steps that the last record was about."""
        self.recent = Means()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers for a checkpoint; everything has to be fetched."""
        assert not self._pending
        return {"recent": asdict(self.recent), "epoch": asdict(self.epoch), "votes": self._votes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.recent, self.epoch = Means(**state["recent"]), Means(**state["epoch"])
        self._votes = state["votes"]


def longest_bad_row(before: int, steps: Sequence[FetchedStep]) -> tuple[int, int]:
    """How many bad steps follow each other at most, and how many are the last ones.

    Args:
        before: how many the last steps before these were.
        steps: in order.
    """
    longest = row = before
    for step in steps:
        row = row + 1 if step.bad else 0
        longest = max(longest, row)
    return longest, row
