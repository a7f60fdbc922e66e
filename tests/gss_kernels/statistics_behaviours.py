"""What every backend's statistics of the vote have to be; one function each.

Each takes the backend's name and the device, and asserts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gss_kernels import BRATS_2018, ROUTES, CategoryGroups, GSSStatistics, fused_gss_loss, fused_gss_objective
from gss_kernels.settings import Backend
from tests.gss_kernels.behaviours import random_tensor
from tests.gss_kernels.cases import BRATS_5, Case, leaves, loss_options, problem
from tests.gss_kernels.oracle import Array, BoolArray, Leaders, Settings, softmax, vote, voxel_target

Behaviour = Callable[[Backend, str], None]
SHAPE = (3, 4, 4, 3, 7)
_COLUMN = {"agree": "leaders agree", "split": "leaders split", "members": "members", "minimum": "minimum"}
# The second sample has a single modality, and so neither votes nor learns; nobody there has the last one.
_GAPS = ((0, 3), (1, 0), (1, 2), (1, 3), (2, 1), (2, 3))

CASES = {
    case.name: case
    for case in (
        Case("brats_2018"),
        Case("brats_2015", BRATS_5, spatial=(37,), layout="sequence", mask="given"),
        Case("missing", absent=_GAPS, batch=3, spatial=(3, 7), settings=Settings(3.7)),
        Case("released", settings=Settings(semantics="released"), batch=1, spatial=(41,), absent=((0, 0),)),
        Case("leader_sets", ((0, 1, 2), (2,), (0, 1)), 3, spatial=(19,), settings=Settings(4.0, 0.5, 0.4), mask="none"),
        Case("many_blocks", ((0,), (0, 1)), 2, 1, (11, 10, 11), layout="permuted"),
    )
}


def counted(logits: Array, leaders: Leaders, settings: Settings, available: BoolArray | None) -> tuple[Array, Array]:
    """Shares of the routes `[C, 4]` and agreement `[M]`, counted voxel by voxel by the oracle's vote."""
    B, M, C = logits.shape[:3]
    rows = logits.reshape(B, M, C, -1)
    routes, agreement = np.zeros((C, 4)), np.zeros(M)
    voxels, voxels_of = 0, np.zeros(M)
    for b, v in np.ndindex(B, rows.shape[3]):
        own = {m: rows[b, m, :, v].tolist() for m in range(M) if available is None or available[b, m]}
        if len(own) < 2:
            continue
        voxels += 1
        for c, leading in enumerate(leaders):
            p = {m: softmax(z)[c] for m, z in own.items()}
            q = {m: softmax(z, settings.temperature)[c] for m, z in own.items()}
            routes[c, ROUTES.index(_COLUMN[vote(p, q, leading, settings)[0]])] += 1
        target = voxel_target(own, leaders, settings)
        for m, z in own.items():
            voxels_of[m] += 1
            agreement[m] += max(target) > 0 and np.argmax(z) == np.argmax(target)
    return routes / max(voxels, 1), agreement / np.maximum(voxels_of, 1)


def statistics_of(logits: Any, backend: Backend, groups: CategoryGroups = BRATS_2018, **options: Any) -> GSSStatistics:
    _, statistics = fused_gss_loss(logits, groups, **{"seed": 0} | options, return_stats=True, backend=backend)
    return statistics


def agrees_with_the_count(case: Case, backend: Backend, device: str) -> None:
    data = problem(case)
    _, logits = leaves(case, data.logits, device)
    loss, statistics = fused_gss_loss(
        logits, case.groups, **loss_options(case, device), return_stats=True, backend=backend
    )
    routes, agreement = counted(data.logits, case.leaders, case.settings, data.available)
    assert all(share.dtype == loss.dtype and not share.requires_grad for share in statistics)
    np.testing.assert_allclose(statistics.routes.cpu().numpy(), routes, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(statistics.agreement.cpu().numpy(), agreement, rtol=1e-6, atol=1e-7)


def every_category_s_routes_sum_to_one(backend: Backend, device: str) -> None:
    available = torch.tensor([[True] * 4, [True, False, False, False], [False, True, True, False]], device=device)
    for options in ({}, {"available": available}):
        routes = statistics_of(random_tensor(device, SHAPE), backend, **options).routes
        torch.testing.assert_close(routes.sum(dim=1), torch.ones(4, device=device), rtol=0, atol=1e-6)
        assert (routes >= 0).all()


def samples_that_do_not_learn_are_left_out(backend: Backend, device: str) -> None:
    available = torch.tensor([[True] * 4, [True, False, False, False], [False, True, True, False]], device=device)
    logits = random_tensor(device, SHAPE)
    learns = torch.tensor([True, False, True], device=device)
    want = statistics_of(logits[learns], backend, available=available[learns])
    logits[~available] = math.nan
    got = statistics_of(logits, backend, available=available)
    assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))


def nobody_to_count_gives_zeros(backend: Backend, device: str) -> None:
    """No sample that learns; and a modality that none of those has."""
    available = torch.eye(4, dtype=torch.bool, device=device)[:3]
    assert not any(share.any() for share in statistics_of(random_tensor(device, SHAPE), backend, available=available))
    available = torch.tensor([[True, True, True, False]] * 2 + [[False, False, False, True]], device=device)
    statistics = statistics_of(random_tensor(device, SHAPE), backend, available=available)
    assert statistics.agreement[3] == 0
    assert (statistics.agreement[:3] > 0).all()


def voxel_without_a_target_agrees_with_nobody(backend: Backend, device: str) -> None:
    """Modalities sure of different categories: all votes are minima, which underflow."""
    logits = (1e4 * torch.eye(4)[[1, 0, 2, 3]]).reshape(1, 4, 4, 1).expand(1, 4, 4, 5).to(device)
    statistics = statistics_of(logits, backend)
    assert not statistics.agreement.any()
    assert statistics.routes.tolist() == [[0.0, 0.0, 0.0, 1.0]] * 4


def modalities_that_say_the_same_agree(backend: Backend, device: str) -> None:
    own = (6 * torch.eye(4)[torch.arange(24) % 4]).T.to(device)
    statistics = statistics_of(own.expand(1, 4, 4, 24), backend)
    assert statistics.agreement.tolist() == [1.0] * 4
    assert statistics.routes[:, 0].tolist() == [0.25] * 4


def mask_does_not_matter(backend: Backend, device: str) -> None:
    logits = random_tensor(device, SHAPE)
    want = statistics_of(logits, backend, mask_ratio=0.0)
    nothing = torch.zeros(3, 4, *SHAPE[3:], dtype=torch.bool, device=device)
    for options in ({"mask_ratio": 0.7}, {"seed": None, "voxel_mask": nothing}):
        got = statistics_of(logits, backend, **options)
        assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))


def statistics_change_no_bit_of_the_loss(backend: Backend, device: str) -> None:
    available = torch.tensor([[True, True, False, True]], device=device)
    several_blocks = {"seed": 3, "available": available}
    for shape, options in (
        (SHAPE, {"seed": 3, "reduction": "none", "temperature": 3.7, "semantics": "released"}),
        ((1, 4, 4, 19, 43), several_blocks),
    ):
        outcomes: list[tuple[Tensor, Tensor]] = []
        for return_stats in (False, True):
            leaf = random_tensor(device, shape).requires_grad_()
            result = fused_gss_loss(leaf, BRATS_2018, **options, return_stats=return_stats, backend=backend)
            loss = result[0] if return_stats else result
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            outcomes.append((loss.detach(), gradient))
        for one, other in zip(*outcomes, strict=True):
            assert torch.equal(one, other)


def objective_has_the_same_statistics(backend: Backend, device: str) -> None:
    logits = random_tensor(device, SHAPE)
    labels = torch.zeros(SHAPE[0], *SHAPE[3:], dtype=torch.uint8, device=device)
    available = torch.tensor([[True] * 4, [True, False, False, False], [False, True, True, False]], device=device)
    terms = fused_gss_objective(
        logits, labels, BRATS_2018, seed=0, available=available, return_stats=True, backend=backend
    )
    assert terms.statistics is not None
    want = statistics_of(logits, backend, available=available)
    assert all(torch.equal(one, other) for one, other in zip(terms.statistics, want, strict=True))


def settings_of_the_vote_matter(backend: Backend, device: str) -> None:
    """A bar that everybody clears, and one that nobody does."""
    logits = random_tensor(device, SHAPE) / 100
    low = statistics_of(logits, backend, leader_threshold=1e-6).routes
    assert low.tolist() == [[1.0, 0.0, 0.0, 0.0]] * 4
    high = statistics_of(logits, backend, leader_threshold=0.99, member_threshold=0.99).routes
    assert high.tolist() == [[0.0, 0.0, 0.0, 1.0]] * 4


# Decided within a kernel; each a few seconds in an interpreter of kernels.
KERNELS: tuple[Behaviour, ...] = (
    samples_that_do_not_learn_are_left_out,
    nobody_to_count_gives_zeros,
    voxel_without_a_target_agrees_with_nobody,
    statistics_change_no_bit_of_the_loss,
    objective_has_the_same_statistics,
)
EVERYWHERE: tuple[Behaviour, ...] = (
    *KERNELS,
    every_category_s_routes_sum_to_one,
    modalities_that_say_the_same_agree,
    mask_does_not_matter,
    settings_of_the_vote_matter,
)
