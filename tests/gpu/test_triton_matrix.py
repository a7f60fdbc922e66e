"""The Triton backend at every number of modalities and categories: as near the truth as plain PyTorch.

Last of these tests, as nearly all of its time goes into compiling: seconds for small sizes, half a minute for the
largest, for each combination of the options.
"""

from __future__ import annotations

import itertools

import pytest

from tests.gss_kernels.cases import problem
from tests.gss_kernels.matrix import SIZES, cases, check_against_eager

# Exponentials, logarithms and reciprocals are the hardware's approximations, good to about two units in the last place.
_ROUNDINGS = 8.0


def cases_of(modalities: int, categories: int) -> int:
    """How many of a size's cases there is time for."""
    logits = modalities * categories
    return 4 if logits <= 12 else 2 if logits <= 24 else 1


_COUNTS = [cases_of(*size) for size in SIZES]
_FIRST = dict(zip(SIZES, itertools.accumulate(_COUNTS, initial=0), strict=False))


@pytest.mark.parametrize(("modalities", "categories"), SIZES)
def test_no_further_from_the_truth_than_eager(modalities: int, categories: int) -> None:
    """Steps of 7 through the cases vary all options from one to the next, and the sizes together take every case."""
    table = cases(modalities, categories)
    first = _FIRST[modalities, categories]
    for number in range(first, first + cases_of(modalities, categories)):
        check_against_eager(table[7 * number % len(table)], "triton", "cuda", roundings=_ROUNDINGS)
    problem.cache_clear()
