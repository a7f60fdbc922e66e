"""The baselines of the supervised loss and of the objective compute what the fused ones compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.baselines.objective import eager_objective, separate_objective
from benchmarks.baselines.segmentation_loss import eager_segmentation_loss
from benchmarks.drawing import draw_labels, draw_logits
from gss_kernels import BRATS_2015, BRATS_2018, CategoryGroups, fused_gss_objective, fused_segmentation_loss
from gss_kernels.settings import InputKind

CPU = torch.device("cpu")
SPACE = (5, 6, 7)


def loss_and_gradient(loss: Callable[..., Tensor], leaf: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    leaf = leaf.clone().requires_grad_()
    value = loss(leaf, *args, **options)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def fused_sum(prediction: Tensor, labels: Tensor, **options: Any) -> Tensor:
    terms = fused_segmentation_loss(prediction, labels, **options)
    return terms.cross_entropy + terms.dice


def assert_equal_to_rounding(got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor]) -> None:
    assert abs(got[0] - want[0]) <= 1e-5 * abs(want[0])
    torch.testing.assert_close(got[1], want[1], rtol=1e-5, atol=1e-5 * float(want[1].abs().max()))


@pytest.mark.parametrize("input_kind", ["logits", "probabilities"])
@pytest.mark.parametrize("categories", [2, 5])
def test_segmentation_baseline_equals_the_fused_loss(input_kind: InputKind, categories: int) -> None:
    prediction = draw_logits((3, 1, categories, *SPACE), torch.float32, CPU).squeeze(1)
    if input_kind == "probabilities":
        prediction = prediction.softmax(dim=1)
    labels = draw_labels((3, *SPACE), categories, CPU)
    labels[1] = 0  # a sample whose other categories are empty
    assert_equal_to_rounding(
        loss_and_gradient(eager_segmentation_loss, prediction, labels, input_kind=input_kind),
        loss_and_gradient(fused_sum, prediction, labels, input_kind=input_kind),
    )


@pytest.mark.parametrize("baseline", [eager_objective, separate_objective])
@pytest.mark.parametrize("groups", [BRATS_2018, BRATS_2015], ids=["C4", "C5"])
def test_objective_baseline_equals_the_fused_objective(baseline: Callable[..., Tensor], groups: CategoryGroups) -> None:
    logits = draw_logits((2, 4, groups.num_categories, *SPACE), torch.float32, CPU)
    labels = draw_labels((2, *SPACE), groups.num_categories, CPU)
    keep = torch.rand(2, 4, *SPACE, generator=torch.Generator().manual_seed(2)) > 0.2
    weights = {"supervised_weight": 0.7, "gss_weight": 1.9}
    assert_equal_to_rounding(
        loss_and_gradient(baseline, logits, labels, groups, keep=keep, **weights),
        loss_and_gradient(fused_gss_objective, logits, labels, groups, voxel_mask=keep, **weights),
    )
