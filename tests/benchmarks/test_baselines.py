"""The baselines of the benchmarks compute what the kernels compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.baselines.gss_loss import drawn_positions, eager_loss, published_steps_loss
from gss_kernels import BRATS_2015, BRATS_2018, CategoryGroups, fused_gss_loss

THREE_LEADERS = CategoryGroups(((0, 1, 2), (2,), (1, 3, 0), (0, 4)))
ALL_LEAD = CategoryGroups(((0, 1, 2), (1,), (2, 0)))
GROUPS = [(BRATS_2018, 4), (BRATS_2015, 4), (THREE_LEADERS, 5), (ALL_LEAD, 3)]
BASELINES = [
    (published_steps_loss, {"semantics": "released", "divergence": "cross_entropy"}),
    (eager_loss, {"semantics": "paper", "divergence": "kl"}),
]


def draw(groups: CategoryGroups, modalities: int) -> tuple[Tensor, Tensor]:
    """Logits that often agree and are often confident, so that every route of the vote is taken; and a mask."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, modalities, groups.num_categories, 5, 6, 7)
    shared = 4 * torch.randn(shape[0], 1, *shape[2:], generator=generator)
    confidence = 0.2 + 2.3 * torch.rand(*shape[:2], 1, *shape[3:], generator=generator)
    logits = confidence * (shared + 2 * torch.randn(shape, generator=generator))
    return logits, torch.rand(*shape[:2], *shape[3:], generator=generator) > 0.2


def loss_and_gradient(loss: Callable[..., Tensor], logits: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, *args, **options)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@pytest.mark.parametrize(("baseline", "options"), BASELINES, ids=["published", "eager"])
@pytest.mark.parametrize(("groups", "modalities"), GROUPS, ids=["C4", "C5", "three leaders", "all lead"])
def test_baseline_equals_the_fused_loss(
    baseline: Callable[..., Tensor], options: dict[str, Any], groups: CategoryGroups, modalities: int
) -> None:
    logits, keep = draw(groups, modalities)
    loss, gradient = loss_and_gradient(baseline, logits, groups, keep=keep)
    want, want_gradient = loss_and_gradient(fused_gss_loss, logits, groups, voxel_mask=keep, **options)
    assert abs(loss - want) <= 1e-5 * abs(want)
    torch.testing.assert_close(gradient, want_gradient, rtol=1e-5, atol=1e-5 * float(want_gradient.abs().max()))


@pytest.mark.parametrize(("baseline", "options"), BASELINES, ids=["published", "eager"])
def test_other_settings_reach_the_baseline(baseline: Callable[..., Tensor], options: dict[str, Any]) -> None:
    logits, keep = draw(BRATS_2018, 4)
    settings = {"temperature": 3.0, "leader_threshold": 0.6, "member_threshold": 0.55, "leader_blend": 0.8}
    loss, gradient = loss_and_gradient(baseline, logits, BRATS_2018, keep=keep, **settings)
    want, want_gradient = loss_and_gradient(fused_gss_loss, logits, BRATS_2018, voxel_mask=keep, **settings, **options)
    assert abs(loss - want) <= 1e-5 * abs(want)
    torch.testing.assert_close(gradient, want_gradient, rtol=1e-5, atol=1e-5 * float(want_gradient.abs().max()))


def test_published_positions_are_drawn_with_replacement_and_shared_by_the_categories() -> None:
    torch.manual_seed(0)
    masked = torch.zeros(2, 3, 20, 21, 22)
    masked[drawn_positions(masked.shape, 0.2)] = 1
    assert torch.equal(masked[:, :1].expand_as(masked), masked)
    assert not torch.equal(masked[0], masked[1])
    assert masked.mean().item() == pytest.approx(1 - math.exp(-0.2), abs=0.01)


@pytest.mark.parametrize("baseline", [published_steps_loss, eager_loss])
def test_drawn_mask_drops_about_its_share_of_the_gradient(baseline: Callable[..., Tensor]) -> None:
    logits, _ = draw(BRATS_2018, 4)
    torch.manual_seed(0)
    _, gradient = loss_and_gradient(baseline, logits, BRATS_2018, mask_ratio=0.5)
    untouched = (gradient == 0).all(dim=2).float().mean().item()
    assert untouched == pytest.approx(1 - math.exp(-0.5) if baseline is published_steps_loss else 0.5, abs=0.05)
