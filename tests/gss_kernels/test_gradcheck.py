"""The gradient of the `cpu` backend against finite differences, in float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gss_kernels import CategoryGroups, fused_gss_loss, gss_soft_targets
from tests.gss_kernels.cases import BRATS_4, BRATS_5, Case, loss_options, problem, target_options
from tests.gss_kernels.oracle import Settings

_CASES = [
    Case("two_by_two", ((0,), (1,)), 2, mask="given", spatial=(3,)),
    Case("three_by_six", ((0,), (1, 2), (2,), (0, 1, 2), (1,), (0, 2)), 3, 1, (2, 2), mask="given"),
    Case("brats_2018", BRATS_4, spatial=(1, 3), mask="none", seed=1),
    Case("brats_2015", BRATS_5, batch=1, spatial=(3,), mask="given", settings=Settings(temperature=3.7)),
    Case("released", BRATS_4, spatial=(2,), mask="given", settings=Settings(4.0, 0.5, 0.4, semantics="released")),
    Case("entropy", BRATS_4, spatial=(3,), mask="given", settings=Settings(1.0, divergence="cross_entropy")),
    Case("plain", BRATS_4, 4, 1, (3,), mask="none", settings=Settings(2.0, class_weighting=False, clamp=0.1)),
    Case("available", BRATS_4, spatial=(3,), mask="given", absent=((0, 1), (1, 0), (1, 2)), seed=2),
    Case("six_by_three", ((0, 5), (1, 2, 3), (4,)), 6, 1, (2,), mask="given", absent=((0, 3),)),
]


def frozen_losses(logits: Tensor, target: Tensor, keep: Tensor, learns: Tensor, settings: Settings) -> Tensor:
    """The losses `[B, M]` as a function of the students alone: target `[B, C, N]` and its weights stay as they are."""
    q = (logits.flatten(3) / settings.temperature).softmax(dim=2).clamp(min=settings.clamp)
    t, k = target[:, None], keep.flatten(2)[:, :, None].to(logits.dtype)
    weight = torch.ones(())
    if settings.class_weighting:
        weight = 1 - (k * t).sum(dim=3, keepdim=True) / k.sum(dim=3, keepdim=True).clamp(min=1)
    entropy = torch.special.xlogy(t, t) if settings.divergence == "kl" else torch.zeros(())
    losses = (weight * k * (entropy - t * q.log())).sum(dim=(2, 3)) / t.shape[3]
    return torch.where(learns, losses, 0.0)


# The target is a constant of the loss, yet it is made of the same logits: finite differences of the loss itself would
# follow the vote as well. So finite differences confirm autograd on the loss with its target and weights frozen, and
# the backend's gradient has to be that one.
@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.name)
def test_gradient_is_that_of_the_loss_with_its_target_frozen(case: Case) -> None:
    case = dataclasses.replace(case, dtype=torch.float64)
    data = problem(case)
    logits = torch.from_numpy(np.nan_to_num(data.logits))
    options = loss_options(case) | {"reduction": "none"}
    target = gss_soft_targets(logits, case.groups, **target_options(case), backend="cpu").flatten(2)
    keep = options.get("voxel_mask", torch.ones(case.batch, case.modalities, *case.spatial, dtype=torch.bool))
    available = options.get("available", torch.ones(case.batch, case.modalities, dtype=torch.bool))
    learns = available & (available.sum(dim=1, keepdim=True) >= 2)

    def frozen(leaf: Tensor) -> Tensor:
        return frozen_losses(leaf, target, keep, learns, case.settings)

    leaf = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(frozen, leaf)
    upstream = torch.randn(case.batch, case.modalities, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    losses = fused_gss_loss(leaf, case.groups, **options, backend="cpu")
    torch.testing.assert_close(losses, frozen(leaf), rtol=1e-10, atol=1e-14)
    (got,) = torch.autograd.grad(losses, leaf, upstream)
    (want,) = torch.autograd.grad(frozen(leaf), leaf, upstream)
    assert want.any()
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-14)


# Where every leader is sure of every category, the others have no vote, and finite differences in their logits leave
# the target as it is: those go through the backend itself.
@pytest.mark.parametrize(
    "options",
    [{}, {"divergence": "cross_entropy", "class_weighting": False}, {"clamp": 0.1, "reduction": "none"}],
    ids=["default", "plain_entropy", "clamp"],
)
@pytest.mark.parametrize(("modalities", "categories"), [(3, 2), (4, 4), (5, 3), (6, 7)])
def test_gradcheck_of_modalities_without_a_vote(modalities: int, categories: int, options: dict[str, Any]) -> None:
    groups = CategoryGroups((((0,), (1,), (0, 1)) * 3)[:categories])
    generator = torch.Generator().manual_seed(modalities)
    shape = (2, modalities, categories, 1, 2)
    leaders, others = torch.randn(shape, generator=generator, dtype=torch.float64).tensor_split((2,), dim=1)
    leaves = [tensor.clone().requires_grad_() for tensor in others.unbind(1)]

    def loss(*students: Tensor) -> Tensor:
        logits = [*leaders.unbind(1), *students]
        sure: dict[str, Any] = {"leader_threshold": 1e-6, "temperature": 2.0, "backend": "cpu"}
        return fused_gss_loss(logits, groups, seed=1, **sure, **options)

    assert torch.autograd.gradcheck(loss, leaves)
