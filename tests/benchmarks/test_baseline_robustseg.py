"""The plain formulation of RobustSeg computes what the lean one does.

Gradients are compared in float64: in float32 the rectifiers' and absolute errors' choices flip with the rounding of
either formulation, and one choice moves the gradients of so small a network by more than rounding does.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from benchmarks.baselines.robustseg import PlainRobustSeg, copy_weights, plain_keys
from gss_train.models.interface import SegmentationOutput
from gss_train.models.robustseg import RobustSeg


class Case(NamedTuple):
    num_categories: int
    width: int
    shape: tuple[int, int, int]
    fused: list[list[int]]
    available: list[list[int]] | None


CASES = {
    "everything": Case(4, 2, (16, 16, 16), [[1, 1, 1, 1], [1, 1, 1, 1]], None),
    "subsets": Case(5, 2, (16, 24, 16), [[1, 0, 1, 1], [0, 1, 0, 0]], None),
    "missing scans": Case(4, 2, (16, 16, 16), [[1, 0, 0, 1], [0, 1, 0, 0]], [[1, 0, 1, 1], [0, 1, 0, 0]]),
    "single sample": Case(5, 2, (24, 16, 16), [[0, 0, 1, 1]], [[0, 1, 1, 1]]),
}


def build(case: Case, dtype: torch.dtype) -> tuple[RobustSeg, PlainRobustSeg]:
    torch.manual_seed(0)
    plain = PlainRobustSeg(case.num_categories, width=case.width)
    with torch.no_grad():
        for parameter in plain.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    lean = RobustSeg(case.num_categories, width=case.width)
    copy_weights(lean, plain)
    return lean.to(dtype), plain.to(dtype)


def run(network: RobustSeg | PlainRobustSeg, case: Case, dtype: torch.dtype) -> SegmentationOutput:
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


def run_backward(network: RobustSeg | PlainRobustSeg, case: Case, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The regulariser and the logits, after a backward pass of a scalar that depends on every voxel of them."""
    output = run(network, case, dtype)
    logits = logits_of_available(output, case)
    sum((tensor.log_softmax(1).square().mean() for tensor in logits), output.regulariser).backward()
    return (output.regulariser, *logits)


def assert_same_outputs(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    for name, *tensors in zip(("regulariser", "fused", "separate"), actual, expected, strict=True):
        assert_near(*tensors, tolerance, name)


@pytest.mark.parametrize("name", CASES)
def test_float32(name: str) -> None:
    """All gradients together, relative to their norm; in two cases a voxel is on either side of a rectifier's kink."""
    case = CASES[name]
    lean, plain = build(case, torch.float32)
    assert_same_outputs(*(run_backward(network, case, torch.float32) for network in (lean, plain)), 1e-5)
    if name in {"everything", "missing scans"}:
        return
    expected = {key: parameter.grad for key, parameter in plain.named_parameters()}
    own = torch.cat([parameter.grad.flatten() for parameter in lean.parameters()])
    joined = torch.cat([expected[key].flatten() for name, _ in lean.named_parameters() for key in plain_keys(name)])
    assert float((own - joined).norm() / joined.norm()) < 1e-5


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_float64_with_and_without_activation_checkpointing(case: Case) -> None:
    lean, plain = build(case, torch.float64)
    outputs = run_backward(plain, case, torch.float64)
    expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for lean.activation_checkpointing in (False, True):
        lean.zero_grad()
        assert_same_outputs(run_backward(lean, case, torch.float64), outputs, 1e-9)
        for name, parameter in lean.named_parameters():
            joined = torch.cat([expected[key] for key in plain_keys(name)]).view_as(parameter)
            # The gradient of a bias in front of a normalisation is rounding alone.
            assert_near(parameter.grad, joined, 1e-8, name, least=1e-12 * largest)


def test_every_plain_parameter_has_a_lean_one() -> None:
    lean, plain = build(CASES["everything"], torch.float32)
    keys = [key for name, _ in lean.named_parameters() for key in plain_keys(name)]
    assert sorted(keys) == sorted(plain.state_dict())
