"""The statistics of the vote on the backends `cpu` and `reference`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from gss_kernels import BRATS_2018, ROUTES, GSSStatistics, fused_gss_loss
from gss_kernels.gss.cpu import _CHUNK_VOXELS as _CHUNK
from gss_kernels.settings import Backend
from tests.gss_kernels.behaviours import random_tensor
from tests.gss_kernels.cases import problem
from tests.gss_kernels.oracle import Settings
from tests.gss_kernels.statistics_behaviours import (
    CASES,
    EVERYWHERE,
    SHAPE,
    Behaviour,
    agrees_with_the_count,
    counted,
    statistics_of,
)

BACKENDS: tuple[Backend, ...] = ("cpu", "reference")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_case_agrees_with_the_count(name: str, dtype: torch.dtype, backend: Backend) -> None:
    agrees_with_the_count(dataclasses.replace(CASES[name], dtype=dtype), backend, "cpu")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("behaviour", EVERYWHERE, ids=lambda behaviour: behaviour.__name__)
def test_behaviour(behaviour: Behaviour, backend: Backend) -> None:
    behaviour(backend, "cpu")


def test_count_on_two_voxels_worked_out_by_hand() -> None:
    """FLAIR leads category 0, T1ce category 1; at the first voxel both are sure, at the second nobody is."""
    sure = [[np.log(0.8), np.log(0.2)], [np.log(0.1), np.log(0.9)]]
    unsure = [[np.log(0.6), np.log(0.4)], [np.log(0.7), np.log(0.3)]]
    logits = np.array([sure, unsure]).transpose(1, 2, 0)[None]
    routes, agreement = counted(logits, ((0,), (1,)), Settings(temperature=1.0), None)
    assert routes.tolist() == [[0.5, 0.0, 0.0, 0.5], [0.5, 0.0, 0.0, 0.5]]
    # Targets 0.8 : 0.9, where T1ce agrees, and 0.6 : 0.3, where both do.
    assert agreement.tolist() == [0.5, 1.0]


def test_cases_take_every_route() -> None:
    """Otherwise agreement would say little."""
    for name in ("brats_2018", "leader_sets"):
        case = CASES[name]
        routes, agreement = counted(problem(case).logits, case.leaders, case.settings, None)
        assert (routes.sum(axis=0) > 0.02).all()
        assert (agreement > 0.2).all()
        assert (agreement < 1).all()


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_returned_forms(backend: Backend, reduction: Any) -> None:
    logits = random_tensor("cpu", SHAPE).requires_grad_()
    result = fused_gss_loss(logits, BRATS_2018, reduction=reduction, return_stats=True, backend=backend)
    loss, statistics = result
    assert isinstance(result, tuple)
    assert loss.requires_grad
    assert loss.shape == (() if reduction == "mean" else SHAPE[:2])
    assert isinstance(statistics, GSSStatistics)
    assert statistics._fields == ("routes", "agreement")
    assert statistics.routes.shape == (4, len(ROUTES))
    assert statistics.agreement.shape == (4,)
    assert not any(share.requires_grad for share in statistics)


def test_volumes_larger_than_a_chunk() -> None:
    logits = random_tensor("cpu", (2, 4, 4, _CHUNK + 5))
    available = torch.tensor([[True] * 4, [True, False, True, True]])
    results = [statistics_of(logits.double(), backend, available=available) for backend in BACKENDS]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
