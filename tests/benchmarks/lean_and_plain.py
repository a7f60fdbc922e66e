"""What the tests of RobustSeg and U-HVED, lean beside plain, have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gss_train.models.interface import SegmentationOutput


class Case(NamedTuple):
    num_categories: int
    width: int
    shape: tuple[int, int, int]
    fused: list[list[int]]
    available: list[list[int]] | None


def run(network: nn.Module, case: Case, dtype: torch.dtype) -> SegmentationOutput:
    x = torch.randn(len(case.fused), 4, *case.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    available = None if case.available is None else torch.tensor(case.available).bool()
    torch.manual_seed(2)
    output: SegmentationOutput = network(x, torch.tensor(case.fused).bool(), available)
    return output


def assert_near(actual: Tensor, expected: Tensor, tolerance: float, name: str, *, least: float = 0.0) -> None:
    atol = max(tolerance * float(expected.detach().abs().max()), least)
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol, msg=lambda text: f"{name}: {text}")


def logits_of_available(output: SegmentationOutput, case: Case) -> list[Tensor]:
    """Without those of unavailable scans, whose zeros a normalisation blows up together with the rounding."""
    assert output.separate is not None
    own = torch.stack(output.separate, dim=1)
    available = torch.ones(own.shape[:2]) if case.available is None else torch.tensor(case.available)
    return [output.fused, own[available.bool()]]


def run_backward(network: nn.Module, case: Case, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The regulariser and the logits, after a backward pass of a scalar that depends on every voxel of them."""
    output = run(network, case, dtype)
    logits = logits_of_available(output, case)
    sum((tensor.log_softmax(1).square().mean() for tensor in logits), output.regulariser).backward()
    return (output.regulariser, *logits)


def assert_same_outputs(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    for name, *tensors in zip(("regulariser", "fused", "separate"), actual, expected, strict=True):
        assert_near(*tensors, tolerance, name)


def assert_same_gradients_in_all(
    lean: nn.Module, plain: nn.Module, plain_keys: Callable[[str], tuple[str, ...]]
) -> None:
    """All together, relative to their norm."""
    expected = {key: parameter.grad for key, parameter in plain.named_parameters()}
    own = torch.cat([parameter.grad.flatten() for parameter in lean.parameters()])
    joined = torch.cat([expected[key].flatten() for name, _ in lean.named_parameters() for key in plain_keys(name)])
    assert float((own - joined).norm() / joined.norm()) < 1e-5
