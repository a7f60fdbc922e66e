"""The convolution with reflection padding computes what PyTorch's does and keeps less."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gss_train.models.layers.reflected_convolution import ReflectedConvolution


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def in_plain_pytorch(layer: ReflectedConvolution, *tensors: Tensor) -> Tensor:
    padded = functional.pad(torch.cat(tensors, dim=1), (1,) * 6, mode="reflect")
    return functional.conv3d(padded, layer.weight, layer.bias, layer.stride, groups=layer.groups)


@pytest.mark.parametrize(
    ("batch", "channels", "stride", "groups", "axes"),
    [
        (2, (4,), 1, 1, (4, 5, 6)),
        (2, (3, 1), 1, 1, (2, 3, 2)),
        (1, (4,), 1, 1, (6, 4, 4)),
        (1, (1, 3), 1, 1, (40, 40, 4)),
        (1, (200, 56), 1, 1, (8, 8, 2)),
        (2, (4,), 2, 4, (4, 6, 2)),
        (1, (8,), 1, 4, (5, 2, 3)),
    ],
)
def test_equals_plain_pytorch(
    batch: int, channels: tuple[int, ...], stride: int, groups: int, axes: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    layer = ReflectedConvolution(sum(channels), 8, stride=stride, groups=groups).double()
    tensors = [draw(batch, count, *axes, seed=count) for count in channels]
    leaves = [*tensors, layer.weight, layer.bias]
    expected = in_plain_pytorch(layer, *tensors)
    actual = layer(*tensors)
    torch.testing.assert_close(actual, expected, atol=1e-11, rtol=0)
    toward = draw(*expected.shape, seed=9).detach()
    for own, plain in zip(
        torch.autograd.grad(actual, leaves, toward), torch.autograd.grad(expected, leaves, toward), strict=True
    ):
        torch.testing.assert_close(own, plain, atol=1e-9, rtol=0)


def test_passes_gradcheck() -> None:
    layer = ReflectedConvolution(2, 2).double()
    assert torch.autograd.gradcheck(layer, (draw(2, 1, 2, 3, 2), draw(2, 1, 2, 3, 2, seed=1)))


def test_keeps_its_inputs_themselves_and_nothing_else_voxel_sized() -> None:
    layer = ReflectedConvolution(5, 2).double()
    tensors = draw(2, 3, 8, 8, 8), draw(2, 2, 8, 8, 8, seed=1)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(*tensors)
    allowed = {tensor.data_ptr() for tensor in (*tensors, layer.weight)}
    assert {tensor.data_ptr() for tensor in kept} <= allowed


def test_follows_autocast() -> None:
    layer = ReflectedConvolution(2, 2)
    x = draw(2, 2, 4, 4, 4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = layer(x)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), layer(x), atol=0.05, rtol=0.05)


def test_frozen_parameters_and_inputs_get_no_gradient() -> None:
    layer = ReflectedConvolution(2, 2).double()
    layer.bias.requires_grad_(False)
    first, second = draw(2, 1, 4, 4, 4), draw(2, 1, 4, 4, 4, seed=1).detach()
    expected = torch.autograd.grad(in_plain_pytorch(layer, first, second).square().sum(), (first, layer.weight))
    layer(first, second).square().sum().backward()
    torch.testing.assert_close(first.grad, expected[0])
    torch.testing.assert_close(layer.weight.grad, expected[1])
    assert layer.bias.grad is None
    assert second.grad is None
