from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from gss_train.training.unfused_losses import plain_cross_entropy, squared_dice

Loss = Callable[..., torch.Tensor]
LOSSES = pytest.mark.parametrize("loss", [squared_dice, plain_cross_entropy])

LABELS = torch.randint(4, (3, 4, 5, 6), generator=torch.Generator().manual_seed(0))


def logits(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, 4, 4, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("label_dtype", [torch.uint8, torch.int64])
def test_dice_is_the_published_formula(label_dtype: torch.dtype) -> None:
    probabilities = logits().softmax(1)
    truth = functional.one_hot(LABELS, 4).movedim(-1, 1).double()
    axes = (0, 2, 3, 4)
    overlap = 2 * (probabilities * truth).sum(axes) / ((probabilities**2).sum(axes) + truth.sum(axes) + 1e-7)
    torch.testing.assert_close(squared_dice(logits(), LABELS.to(label_dtype)), 1 - overlap.mean())


@pytest.mark.parametrize("label_dtype", [torch.uint8, torch.int64])
def test_cross_entropy_is_minus_the_mean_log_probability_of_the_truth(label_dtype: torch.dtype) -> None:
    truth = logits().softmax(1).gather(1, LABELS[:, None])
    torch.testing.assert_close(plain_cross_entropy(logits(), LABELS.to(label_dtype)), -truth.log().mean())


@LOSSES
def test_certain_and_right_is_zero(loss: Loss) -> None:
    right = functional.one_hot(LABELS, 4).movedim(-1, 1).float() * 100
    torch.testing.assert_close(loss(right, LABELS), torch.tensor(0.0))


@LOSSES
def test_unavailable_samples_do_not_count(loss: Loss) -> None:
    available = torch.tensor([True, False, True])
    inputs = logits().requires_grad_()
    value = loss(inputs, LABELS, available)
    torch.testing.assert_close(value, loss(inputs[available], LABELS[available]))
    (gradient,) = torch.autograd.grad(value, inputs)
    assert not gradient[1].any()
    assert gradient[0].any()


@LOSSES
def test_bfloat16_is_summed_in_float32(loss: Loss) -> None:
    assert loss(logits(torch.bfloat16), LABELS).dtype == torch.float32


def test_gradient() -> None:
    inputs = logits()[:1, :, :2, :2, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda leaf: squared_dice(leaf, LABELS[:1, :2, :2, :2]), inputs)
