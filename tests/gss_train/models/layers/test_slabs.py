"""Slabs change nothing but the path that the convolution takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gss_train.models.layers.slabs import convolve_slabs


@pytest.mark.parametrize("depth", [2, 3, 4, 9])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_equals_the_convolution_of_the_whole(depth: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv3d(3, 5, 3).double()
    padded = torch.randn(1, 3, depth + 2, 5, 6, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    actual, expected = convolve_slabs(convolution, padded), convolution(padded)
    torch.testing.assert_close(actual, expected)
    probe = torch.randn_like(expected)
    inputs = [padded, convolution.weight, convolution.bias]
    gradients = torch.autograd.grad(actual, inputs, probe)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, inputs, probe), strict=True):
        torch.testing.assert_close(gradient, wanted)
