"""The convolution of an upsampled tensor against upsampling, padding and convolving."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gss_train.models.layers.upsampled_convolution import UpsampledConvolution


def upsample_pad_convolve(x: Tensor, layer: UpsampledConvolution) -> Tensor:
    padding = layer.kernel_size[0] // 2
    fine = functional.interpolate(x, scale_factor=2, mode="nearest")
    padded = functional.pad(fine, (padding,) * 6, mode="reflect")
    return functional.conv3d(padded, layer.weight, layer.bias)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize(
    ("batch", "shape"), [(1, (2, 2, 2)), (1, (3, 2, 4)), (2, (4, 3, 2)), (1, (5, 4, 3)), (1, (6, 64, 2))]
)
def test_equals_upsampling_and_convolving(kernel_size: int, batch: int, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    layer = UpsampledConvolution(64 if shape[1] == 64 else 3, 2, kernel_size).double()
    x = torch.randn(batch, layer.in_channels, *shape, dtype=torch.float64, requires_grad=True)
    results = []
    for result in (layer(x), upsample_pad_convolve(x, layer)):
        direction = torch.randn(result.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        results.append((result, *torch.autograd.grad(result, (x, layer.weight, layer.bias), direction)))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


def test_state_dict_holds_weight_and_bias_alone() -> None:
    assert set(UpsampledConvolution(2, 3, 5).state_dict()) == {"weight", "bias"}


def test_other_kernel_size_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel_size is 4"):
        UpsampledConvolution(2, 2, 4)
