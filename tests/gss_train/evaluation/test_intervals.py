"""Intervals are checked against what is known of the bootstrap, not against the code that draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from gss_train.evaluation.intervals import bootstrap_interval, interval_of
from gss_train.evaluation.metrics import SCORES
from gss_train.evaluation.subset_scores import SubsetScores, with_mean_over_subsets

NAN = np.nan


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, shape)


def test_a_normal_sample_has_about_the_interval_of_its_standard_error() -> None:
    values = 5 + 2 * np.random.default_rng(0).standard_normal(400)
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(len(values))
    low, high = bootstrap_interval(values)
    assert low.shape == high.shape == ()
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_scores_that_do_not_differ_leave_no_doubt() -> None:
    low, high = bootstrap_interval(np.full((5, 2), 0.25))
    assert low.tolist() == high.tolist() == [0.25, 0.25]


def test_every_column_has_the_interval_that_it_has_alone_and_every_time() -> None:
    values = draw(1, 6, 3, 2)
    low, high = bootstrap_interval(values)
    assert low.shape == high.shape == (3, 2)
    for place in np.ndindex(3, 2):
        assert bootstrap_interval(values[:, *place]) == (low[place], high[place])


def test_subjects_without_a_value_are_left_out() -> None:
    values = draw(2, 7, 2)
    values[[1, 4], 0] = NAN
    low, high = bootstrap_interval(values)
    assert bootstrap_interval(values[[0, 2, 3, 5, 6], 0]) == (low[0], high[0])
    assert bootstrap_interval(values[:, 1]) == (low[1], high[1])


@pytest.mark.parametrize("values", [[0.5], [NAN, 0.5, NAN], [NAN, NAN]])
def test_fewer_than_two_subjects_have_no_interval(values: list[float]) -> None:
    assert np.isnan(bootstrap_interval(values)).all()


def test_the_last_row_is_of_the_mean_over_the_subsets_that_a_subject_has() -> None:
    values = torch.tensor([[[0.2], [0.4]], [[NAN], [0.6]], [[NAN], [NAN]]])
    mean = with_mean_over_subsets(values)
    assert mean.shape == (3, 3, 1)
    np.testing.assert_allclose(mean[:, -1, 0], [0.3, 0.6, NAN])
    dice = draw(4, 5, 15, 4)
    low, high = interval_of(SubsetScores(tuple("abcde"), SCORES, {"dice": torch.from_numpy(dice)}), "dice")
    assert low.shape == high.shape == (16, 4)
    means = dice.mean(axis=0)
    assert ((low[:-1] < means) & (means < high[:-1])).all()
    for name in range(4):
        assert bootstrap_interval(dice[:, :, name].mean(axis=1)) == pytest.approx((low[-1, name], high[-1, name]))
