from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gss_train.models.layers.zero_padded_convolution import ZeroPaddedConvolution


def weight_gradient(convolution: ZeroPaddedConvolution, x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(convolution(x).float().sum(), convolution.weight)
    return gradient.float()


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_gradient_in_bfloat16_is_that_of_float32(depth: int) -> None:
    """Also where the memory that the library gets for it held something else before."""
    torch.manual_seed(0)
    convolution = ZeroPaddedConvolution(64, 64)
    x = torch.randn(2, 64, depth, 2, 2)
    expected = weight_gradient(convolution, x)
    for _ in range(30):
        litter = [torch.full((count,), 1e30) for count in (10**5, 2 * 10**5, 10**6, 3 * 10**6)]
        del litter
        with torch.autocast("cpu", torch.bfloat16):
            gradient = weight_gradient(convolution, x)
        torch.testing.assert_close(gradient, expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


@pytest.mark.parametrize("depth", [2, 5])
def test_zeros_are_around(depth: int) -> None:
    torch.manual_seed(0)
    convolution = ZeroPaddedConvolution(3, 4).double()
    x = torch.randn(2, 3, depth, 4, 5, dtype=torch.float64)
    want = torch.nn.functional.conv3d(x, convolution.weight, convolution.bias, padding=1)
    torch.testing.assert_close(convolution(x), want)
