"""The combined copy equals concatenation followed by PyTorch's reflection padding."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gss_train.models.layers.padding import reflect_and_concatenate


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 4, 5)])
def test_equals_concatenation_and_padding(layout: torch.memory_format, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    first = torch.randn(2, 3, *shape, dtype=torch.float64, requires_grad=True)
    second = torch.randn(2, 1, *shape, dtype=torch.float64, requires_grad=True)
    padded = reflect_and_concatenate(first, second, memory_format=layout)
    expected = functional.pad(torch.cat((first, second), 1), (1,) * 6, mode="reflect")
    assert torch.equal(padded, expected)
    assert padded.is_contiguous(memory_format=layout)
    probe = torch.randn_like(expected)
    actual_gradients = torch.autograd.grad(padded, (first, second), probe)
    for actual, wanted in zip(actual_gradients, torch.autograd.grad(expected, (first, second), probe), strict=True):
        torch.testing.assert_close(actual, wanted)


def test_gradient_handed_in_is_left_alone() -> None:
    x = torch.randn(1, 2, 3, 3, 3, requires_grad=True)
    padded = reflect_and_concatenate(x)
    gradient = torch.randn_like(padded)
    before = gradient.clone()
    padded.backward(gradient)
    assert torch.equal(gradient, before)
