"""How far means over subjects can be trusted: 95 % bootstrap intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gss_train.evaluation.subset_scores import SubsetScores, with_mean_over_subsets

_CONFIDENCE = 0.95
_RESAMPLES = 2000
_SEED = 0

Floats = npt.NDArray[np.float64]


def bootstrap_interval(values: npt.ArrayLike) -> tuple[Floats, Floats]:
    """The interval of a mean over subjects, by resampling the subjects (percentiles, with a fixed seed).

    Args:
        values: `[subjects, ...]`; NaN where a subject has none.

    Returns:
        Its lower and upper ends, `[...]` each; NaN where fewer than two subjects have a value.
    """
    # Here, so that what only scores, such as a training, does not wait for it.
    from scipy import stats  # noqa: PLC0415

    array = np.asarray(values, np.float64)
    columns = array.reshape(len(array), -1)
    low, high = np.full(columns.shape[1], np.nan), np.full(columns.shape[1], np.nan)
    # Columns of the same subjects are resampled together.
    known = ~np.isnan(columns)
    patterns, members = np.unique(known, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        if pattern.sum() < 2:
            continue
        chosen = np.flatnonzero(members == number)
        result: Any = stats.bootstrap(
            (columns[np.ix_(pattern, chosen)],),
            np.mean,
            axis=0,
            n_resamples=_RESAMPLES,
            confidence_level=_CONFIDENCE,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(_SEED),
        )
        low[chosen], high[chosen] = result.confidence_interval
    return low.reshape(array.shape[1:]), high.reshape(array.shape[1:])


def interval_of(scores: SubsetScores, measure: str) -> tuple[Floats, Floats]:
    """The interval of each mean of a table.

    Returns:
        Lower and upper ends, `[subsets + 1, names]` each; the last row is that of the mean over the subsets.
    """
    return bootstrap_interval(with_mean_over_subsets(scores.measures[measure]).numpy())
