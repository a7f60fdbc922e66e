"""The lean region fusion equals the published formulation, written out here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gss_train.models.rfnet.region_fusion import RegionFusion

CHANNELS = 4


def published_convolution_input(layer: RegionFusion, features: Tensor, kept: Tensor, maps: Tensor) -> Tensor:
    """The concatenated region features `[B, C * channels, D, H, W]` by way of every product of feature and map."""
    batch, categories = maps.shape[:2]
    stacked = features.view(batch, 4, CHANNELS, *features.shape[2:]) * kept.view(batch, 4, 1, 1, 1, 1)
    hidden_weights = layer.attention.hidden.weight.chunk(categories)
    hidden_biases = layer.attention.hidden.bias.chunk(categories)
    output_weights = layer.attention.output.weight.chunk(categories)
    output_biases = layer.attention.output.bias.chunk(categories)
    regions = []
    for region in range(categories):
        products = stacked * maps[:, region].view(batch, 1, 1, *maps.shape[2:])
        share = maps[:, region].mean(dim=(1, 2, 3)) + 1e-7
        means = products.mean(dim=(3, 4, 5)) / share.view(batch, 1, 1)
        descriptor = torch.cat((means.flatten(1), share.view(batch, 1)), dim=1)
        hidden = functional.linear(descriptor, hidden_weights[region][:, :, 0], hidden_biases[region])
        weights = functional.linear(
            functional.leaky_relu(hidden, 0.2), output_weights[region][:, :, 0], output_biases[region]
        )
        regions.append((products * weights.sigmoid().view(batch, 4, 1, 1, 1, 1)).sum(dim=1))
    return torch.cat(regions, dim=1)


@pytest.mark.parametrize("num_categories", [2, 5])
def test_equals_the_published_formulation(num_categories: int) -> None:
    torch.manual_seed(0)
    layer = RegionFusion(CHANNELS, num_categories).double()
    features = torch.randn(3, 4 * CHANNELS, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    maps = torch.randn(3, num_categories, 4, 3, 5, dtype=torch.float64).softmax(1)
    kept = torch.tensor([[True, True, True, True], [True, False, False, True], [False, True, False, False]])
    probe = torch.randn(3, CHANNELS, 4, 3, 5, dtype=torch.float64)

    lean = layer.convolve_regions(features, kept, maps)
    published = functional.conv3d(
        published_convolution_input(layer, features, kept, maps),
        layer.squeeze_regions.weight,
        layer.squeeze_regions.bias,
    )
    torch.testing.assert_close(lean, published, atol=1e-10, rtol=1e-10)

    inputs = [features, layer.squeeze_regions.weight, *layer.attention.parameters()]
    lean_gradients = torch.autograd.grad((lean * probe).sum(), inputs)
    published_gradients = torch.autograd.grad((published * probe).sum(), inputs)
    for actual, expected in zip(lean_gradients, published_gradients, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)


def test_maps_get_no_gradient() -> None:
    torch.manual_seed(0)
    maps = torch.rand(1, 2, 4, 4, 4, requires_grad=True)
    layer = RegionFusion(CHANNELS, 2)
    layer(torch.randn(1, 4 * CHANNELS, 4, 4, 4), torch.ones(1, 4, dtype=torch.bool), maps).sum().backward()
    assert maps.grad is None
