from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from gss_kernels import GSSStatistics
from gss_train.common.processes import Processes
from gss_train.training.gathering import TERMS, FetchedStep, Gathered, StepResult, longest_bad_row


def result(
    total: float, norm: float = 1.0, skipped: float = 0.0, bad: float = 0.0, statistics: GSSStatistics | None = None
) -> StepResult:
    return StepResult(torch.tensor([total, 2.0, 3.0, 4.0, 5.0, 6.0, norm, skipped, bad]), statistics)


def vote(value: float) -> GSSStatistics:
    return GSSStatistics(torch.full((4, 4), value), torch.full((4,), value / 2))


def test_terms_are_those_of_the_objective() -> None:
    assert TERMS == ("total", "fused", "separate", "auxiliary", "gss", "regulariser")


def test_means_go_over_the_finite_steps_alone() -> None:
    gathered = Gathered()
    gathered.add(0, result(10, norm=3))
    gathered.add(1, result(math.nan, norm=math.nan, skipped=1, bad=1))
    gathered.add(2, result(20, norm=5))
    fetched = gathered.fetch()
    assert [(step.step, step.skipped, step.bad) for step in fetched] == [
        (0, False, False),
        (1, True, True),
        (2, False, False),
    ]
    assert fetched[0].terms == (10, 2, 3, 4, 5, 6)
    for means in (gathered.recent, gathered.epoch):
        assert means.terms() == {"total": 15, "fused": 2, "separate": 3, "auxiliary": 4, "gss": 5, "regulariser": 6}
        assert (means.steps, means.skipped, means.gradient_norm) == (3, 1, 5)


def test_without_a_finite_step_there_is_no_mean() -> None:
    gathered = Gathered()
    gathered.add(0, result(math.inf, skipped=1, bad=1))
    gathered.fetch()
    assert set(gathered.recent.terms().values()) == {None}
    assert gathered.recent.gradient_norm is None


def test_records_and_epochs_begin_apart() -> None:
    gathered = Gathered()
    gathered.add(0, result(10))
    gathered.fetch()
    gathered.begin_record()
    gathered.add(1, result(20))
    gathered.fetch()
    assert gathered.recent.terms()["total"] == 20
    assert gathered.epoch.terms()["total"] == 15
    gathered.begin_epoch()
    assert gathered.recent.terms()["total"] == 20
    assert gathered.epoch.steps == 0


def test_nothing_is_fetched_twice() -> None:
    gathered = Gathered()
    gathered.add(0, result(10))
    assert len(gathered.fetch()) == 1
    assert gathered.fetch() == []
    assert gathered.epoch.steps == 1


def test_votes_are_averaged_over_the_epoch_and_leave_out_skipped_steps() -> None:
    gathered = Gathered()
    assert gathered.vote() is None
    gathered.add(0, result(1, statistics=vote(0.2)))
    gathered.add(1, result(1))
    gathered.add(2, result(1, statistics=vote(0.6)))
    gathered.add(3, result(math.nan, skipped=1, bad=1, statistics=vote(math.nan)))
    gathered.fetch()
    means = gathered.vote()
    assert means is not None
    torch.testing.assert_close(torch.tensor(means["routes"]), torch.full((4, 4), 0.4))
    torch.testing.assert_close(torch.tensor(means["agreement"]), torch.full((4,), 0.2))
    gathered.begin_epoch()
    assert gathered.vote() is None


def test_it_goes_on_from_plain_numbers() -> None:
    gathered, other = Gathered(), Gathered()
    gathered.add(0, result(1 / 3, statistics=vote(0.3)))
    gathered.fetch()
    other.load_state_dict(gathered.state_dict())
    for one in (gathered, other):
        one.add(1, result(0.1, statistics=vote(0.7)))
        one.fetch()
    assert other.state_dict() == gathered.state_dict()
    assert other.vote() == gathered.vote()


def test_several_processes_report_their_mean() -> None:
    class Twins(Processes):
        """The other process has 10 more of everything."""

        def sum(self, values: torch.Tensor) -> torch.Tensor:
            return 2 * values + 10

    gathered = Gathered(Twins(rank=0, size=2))
    gathered.add(0, result(1))
    assert gathered.fetch()[0].terms[0] == 6


@pytest.mark.parametrize(
    ("before", "bad", "expected"),
    [(0, [], (0, 0)), (2, [], (2, 2)), (2, [1, 1, 0, 1], (4, 1)), (3, [0, 1, 1], (3, 2)), (0, [0, 0], (0, 0))],
)
def test_bad_steps_in_a_row_are_counted_across_fetches(before: int, bad: list[Any], expected: tuple[int, int]) -> None:
    steps = [FetchedStep(number, (1.0,) * 6, 1.0, bool(flag), bool(flag)) for number, flag in enumerate(bad)]
    assert longest_bad_row(before, steps) == expected
