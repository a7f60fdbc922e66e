"""Convolutions from and to a single channel against the ordinary ones."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gss_train.models.layers.single_channel_convolution import convolve_from_single_channel, convolve_to_single_channel


@pytest.mark.parametrize("taps", [3, 7])
@pytest.mark.parametrize(
    ("convolve", "in_channels", "out_channels"),
    [(convolve_from_single_channel, 1, 3), (convolve_to_single_channel, 3, 1)],
)
@pytest.mark.parametrize("shape", [(5, 6, 7), (8, 4, 5)])
def test_equals_ordinary_convolution(convolve, in_channels, out_channels, taps, shape) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, in_channels, *shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(out_channels, in_channels, *[taps] * 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(out_channels, dtype=torch.float64, requires_grad=True)
    padded = functional.pad(x, (taps // 2,) * 6, mode="reflect")
    results = []
    for result in (convolve(x, weight, bias), functional.conv3d(padded, weight, bias)):
        direction = torch.randn(result.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        results.append((result, *torch.autograd.grad(result, (x, weight, bias), direction)))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)
