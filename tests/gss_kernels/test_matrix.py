"""The `cpu` backend in float32 at every number of modalities and categories: as near the truth as plain PyTorch."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.gss_kernels.cases import problem
from tests.gss_kernels.matrix import SIZES, cases, check_against_eager


@pytest.mark.parametrize(("modalities", "categories"), SIZES)
def test_no_further_from_the_truth_than_eager(modalities: int, categories: int, record_property: Any) -> None:
    table = cases(modalities, categories)
    for case in table:
        check_against_eager(case, "cpu")
    moved = sum(problem(case).moved for case in table)
    voxels = sum(case.batch * math.prod(case.spatial) for case in table)
    vanishing = sum(not problem(case).answer.losses.any() for case in table)
    problem.cache_clear()
    record_property("voxels moved off a threshold", f"{moved} of {voxels}")
    assert moved <= 0.01 * voxels
    assert vanishing <= 2
