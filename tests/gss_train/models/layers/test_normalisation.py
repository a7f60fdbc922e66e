"""The lean normalisation equals PyTorch's own two steps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gss_train.models.layers.normalisation import normalise_activate


def plain(x: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(functional.instance_norm(x, eps=1e-5), 0.2)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (1, 1, 2, 2, 2), (3, 4, 7)])
def test_equals_instance_norm_and_leaky_relu(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = (3 * torch.randn(shape) + 2).requires_grad_()
    probe = torch.randn(shape)
    torch.testing.assert_close(normalise_activate(x), plain(x))
    (actual,) = torch.autograd.grad((normalise_activate(x) * probe).sum(), x)
    (expected,) = torch.autograd.grad((plain(x) * probe).sum(), x)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_gradient_by_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normalise_activate, x)


def test_constant_channel_gives_zero_and_no_gradient() -> None:
    x = torch.full((1, 2, 2, 2, 2), 3.0, requires_grad=True)
    result = normalise_activate(x)
    result.square().sum().backward()
    torch.testing.assert_close(result, torch.zeros_like(result))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.zeros_like(x))


def test_memory_layout_of_input_and_gradient_does_not_matter() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4, 4)
    probe = torch.randn(2, 3, 4, 4, 4)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        leaf = x.clone(memory_format=layout).requires_grad_()
        y = normalise_activate(leaf)
        (gradient,) = torch.autograd.grad(y, leaf, probe.contiguous(memory_format=layout))
        results.append((y, gradient))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def test_bfloat16_is_as_near_the_truth_as_pytorch() -> None:
    torch.manual_seed(0)
    x = (torch.randn(2, 3, 8, 8, 8) + 1).bfloat16()
    probe = torch.randn(2, 3, 8, 8, 8).bfloat16()

    def result_and_gradient(function: object, dtype: torch.dtype) -> list[torch.Tensor]:
        leaf = x.to(dtype).requires_grad_()
        y = function(leaf)  # type: ignore[operator]
        return [y.double(), torch.autograd.grad(y, leaf, probe.to(dtype))[0].double()]

    truth = result_and_gradient(plain, torch.float64)
    ours = result_and_gradient(normalise_activate, torch.bfloat16)
    pytorch = result_and_gradient(plain, torch.bfloat16)
    for exact, mine, theirs in zip(truth, ours, pytorch, strict=True):
        assert (mine - exact).abs().max() <= 1.5 * (theirs - exact).abs().max() + 1e-2


def test_keeps_only_its_result_for_the_backward_pass() -> None:
    kept: list[torch.Tensor] = []
    x = torch.randn(2, 3, 8, 8, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        y = normalise_activate(x)
    voxel_sized = [tensor for tensor in kept if tensor.numel() >= x.numel()]
    assert [tensor.data_ptr() for tensor in voxel_sized] == [y.data_ptr()]
