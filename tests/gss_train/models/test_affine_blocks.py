"""Affine instance normalisation with a leaky rectifier against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gss_train.models.robustseg.affine_blocks import normalise_scale_activate


@pytest.mark.parametrize("scale", [1.0, -0.5, 0.0])
@pytest.mark.parametrize("contiguous", [True, False])
def test_equals_normalising_and_activating(scale: float, contiguous: bool) -> None:
    torch.manual_seed(0)
    x = 3 + torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    x = (x if contiguous else x.contiguous(memory_format=torch.channels_last_3d)).requires_grad_()
    scales = (scale * (1 + torch.rand(3, dtype=torch.float64))).requires_grad_()
    shifts = torch.randn(3, dtype=torch.float64, requires_grad=True)
    expected = functional.leaky_relu(functional.instance_norm(x, weight=scales, bias=shifts, eps=1e-6), 0.2)
    direction = torch.randn(x.shape, dtype=torch.float64)
    results = [
        (result, *torch.autograd.grad(result, (x, scales, shifts), direction))
        for result in (normalise_scale_activate(x, scales, shifts), expected)
    ]
    for actual, wanted in zip(*results, strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_dtype_is_the_input_s(dtype: torch.dtype) -> None:
    x = (100 + torch.randn(1, 2, 4, 4, 4)).to(dtype).requires_grad_()
    scales, shifts = torch.ones(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    result = normalise_scale_activate(x, scales, shifts)
    result.sum().backward()
    assert result.dtype == x.grad.dtype == dtype
    assert scales.grad.dtype == torch.float32
    assert result.isfinite().all()
