"""The Triton backend at every number of modalities and categories: as near the truth as plain PyTorch.

Last of these tests, as nearly all of its time goes into compiling.
"""

from __future__ import annotations

import pytest

from tests.gss_kernels.cases import problem
from tests.gss_kernels.matrix import SIZES, cases, check_against_eager

_CASES_OF_A_SIZE = 4
# Exponentials, logarithms and reciprocals are the hardware's approximations, good to about two units in the last place.
_ROUNDINGS = 8.0


def chosen(number: int, count: int) -> list[int]:
    """Which of a size's cases: a step of 7 varies all options within a size, and the sizes together take all cases."""
    return [(number + 7 * step) % count for step in range(_CASES_OF_A_SIZE)]


@pytest.mark.parametrize(("modalities", "categories"), SIZES)
def test_no_further_from_the_truth_than_eager(modalities: int, categories: int) -> None:
    table = cases(modalities, categories)
    for index in chosen(SIZES.index((modalities, categories)), len(table)):
        check_against_eager(table[index], "triton", "cuda", roundings=_ROUNDINGS)
    problem.cache_clear()
