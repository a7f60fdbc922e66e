"""The supervised losses and the statistics of the vote of the Triton backend on a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gss_kernels import BRATS_2018, fused_gss_objective, fused_segmentation_loss
from tests.gss_kernels import (
    objective_behaviours,
    objective_cases,
    segmentation_behaviours,
    segmentation_cases,
    statistics_behaviours,
)
from tests.gss_kernels.behaviours import Behaviour

# Exponentials and logarithms are the hardware's approximations, good to about two units in the last place.
_ARITHMETIC = 1e-4
# The Triton backend takes no float64.
_OBJECTIVE_CASES = [name for name, case in objective_cases.TABLE.items() if case.call.dtype != torch.float64]
_BEHAVIOURS = {
    f"{subject.__name__.split('.')[-1].removesuffix('_behaviours')}: {behaviour.__name__}": behaviour
    for subject, behaviours in (
        (segmentation_behaviours, segmentation_behaviours.EVERYWHERE + segmentation_behaviours.FUSED),
        (
            objective_behaviours,
            objective_behaviours.EVERYWHERE + objective_behaviours.FUSED + objective_behaviours.UNCHECKED,
        ),
        (statistics_behaviours, statistics_behaviours.EVERYWHERE),
    )
    for behaviour in behaviours
}


@pytest.mark.parametrize("name", segmentation_cases.TABLE)
def test_segmentation_agrees_with_oracle(name: str) -> None:
    case = segmentation_cases.TABLE[name]
    segmentation_cases.check(case, segmentation_cases.run(case, "triton", "cuda"))


@pytest.mark.parametrize("name", _OBJECTIVE_CASES)
def test_objective_agrees_with_oracles(name: str) -> None:
    case = objective_cases.TABLE[name]
    objective_cases.check(case, objective_cases.run(case, "triton", "cuda"), arithmetic=_ARITHMETIC)


@pytest.mark.parametrize("name", statistics_behaviours.CASES)
def test_statistics_agree_with_the_count(name: str) -> None:
    statistics_behaviours.agrees_with_the_count(statistics_behaviours.CASES[name], "triton", "cuda")


@pytest.mark.parametrize("behaviour", _BEHAVIOURS.values(), ids=_BEHAVIOURS)
def test_behaviour(behaviour: Behaviour) -> None:
    behaviour("triton", "cuda")


@pytest.mark.parametrize("label", [4, 255, -1])
def test_labels_that_are_no_category_give_nan_and_no_error(label: int) -> None:
    """On a GPU the host would have to wait for the labels to be checked."""
    logits = objective_behaviours.random_tensor("cuda", objective_behaviours.SHAPE)
    labels = objective_behaviours.random_labels("cuda").long()
    labels[1, 2, 0] = label
    for backend in ("triton", "reference"):
        options: dict[str, Any] = {"backend": backend}
        assert fused_gss_objective(logits, labels, BRATS_2018, **options).isnan()
        assert all(term.isnan() for term in fused_segmentation_loss(logits[:, 0], labels, **options))


def test_backends_that_do_not_take_the_tensors() -> None:
    logits = objective_behaviours.random_tensor("cuda", objective_behaviours.SHAPE)
    labels = objective_behaviours.random_labels("cuda")
    with pytest.raises(ValueError, match="backend: got 'cpu'"):
        fused_gss_objective(logits, labels, BRATS_2018, backend="cpu")
    with pytest.raises(ValueError, match=r"logits: got dtype torch.float64"):
        fused_gss_objective(logits.double(), labels, BRATS_2018)
    with pytest.raises(ValueError, match=r"input: got dtype torch.float64"):
        fused_segmentation_loss(logits[:, 0].double(), labels)
    with pytest.raises(ValueError, match=r"labels: .*cpu"):
        fused_gss_objective(logits, labels.cpu(), BRATS_2018)
    with pytest.raises(ValueError, match=r"labels: .*cpu"):
        fused_segmentation_loss(logits[:, 0], labels.cpu())
