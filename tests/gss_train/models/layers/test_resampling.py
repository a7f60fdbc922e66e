"""Upsampling equals PyTorch's trilinear interpolation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gss_train.models.layers.resampling import upsample


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_equals_trilinear_interpolation(factor: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 2, 3, 5).contiguous(memory_format=layout).requires_grad_()
    actual = upsample(x, factor)
    expected = functional.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=True)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    probe = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(actual, x, probe)
    (wanted,) = torch.autograd.grad(expected, x, probe)
    torch.testing.assert_close(gradient, wanted, atol=1e-4, rtol=1e-5)


def test_factor_one_changes_nothing() -> None:
    x = torch.randn(1, 1, 2, 2, 2)
    assert upsample(x, 1) is x


def test_autocast_does_not_round_float32_maps() -> None:
    maps = torch.randn(2, 4, 4, 4, 4).softmax(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = upsample(maps, 4)
    torch.testing.assert_close(rough, upsample(maps, 4), atol=0, rtol=0)


def test_first_use_under_inference_mode_does_not_spoil_training() -> None:
    x = torch.randn(1, 1, 3, 7, 2)
    with torch.inference_mode():
        upsample(x, 5)
    upsample(x.requires_grad_(), 5).sum().backward()
    assert x.grad is not None
