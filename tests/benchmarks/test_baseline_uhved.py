"""The plain formulation of U-HVED computes what the lean one does.

Gradients are compared in float64: in float32 the pooling's and the rectifiers' choices flip with the rounding of either
formulation, and one choice moves the gradients of so small a network by a percent. The parts that round are compared
in float32 one by one, in the tests of `gss_train.models`.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.baselines.uhved import PlainUHVED, copy_weights, plain_keys
from gss_train.models.uhved import UHVED
from tests.benchmarks.lean_and_plain import (
    Case,
    assert_near,
    assert_same_gradients_in_all,
    assert_same_outputs,
    run_backward,
)

CASES = {
    "everything": Case(4, 2, (16, 16, 16), [[1, 1, 1, 1], [1, 1, 1, 1]], None),
    "subsets": Case(5, 2, (16, 24, 16), [[1, 0, 1, 1], [0, 1, 0, 0]], None),
    "missing scans": Case(4, 2, (16, 16, 16), [[1, 0, 0, 1], [0, 1, 0, 0]], [[1, 0, 1, 1], [0, 1, 0, 0]]),
    "single sample": Case(5, 4, (24, 16, 16), [[0, 0, 1, 1]], [[0, 1, 1, 1]]),
}


def build(case: Case, dtype: torch.dtype) -> tuple[UHVED, PlainUHVED]:
    torch.manual_seed(0)
    plain = PlainUHVED(case.num_categories, width=case.width)
    with torch.no_grad():
        for parameter in plain.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    lean = UHVED(case.num_categories, width=case.width)
    copy_weights(lean, plain)
    return lean.to(dtype), plain.to(dtype)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_float32(case: Case) -> None:
    """All gradients together, relative to their norm."""
    lean, plain = build(case, torch.float32)
    assert_same_outputs(*(run_backward(network, case, torch.float32) for network in (lean, plain)), 1e-5)
    assert_same_gradients_in_all(lean, plain, plain_keys)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_float64_with_and_without_activation_checkpointing(case: Case) -> None:
    lean, plain = build(case, torch.float64)
    outputs = run_backward(plain, case, torch.float64)
    expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
    for lean.activation_checkpointing in (False, True):
        lean.zero_grad()
        assert_same_outputs(run_backward(lean, case, torch.float64), outputs, 1e-9)
        for name, parameter in lean.named_parameters():
            joined = torch.cat([expected[key] for key in plain_keys(name)]).view_as(parameter)
            assert_near(parameter.grad, joined, 1e-8, name)


def test_every_plain_parameter_has_a_lean_one() -> None:
    lean, plain = build(CASES["everything"], torch.float32)
    keys = [key for name, _ in lean.named_parameters() for key in plain_keys(name)]
    assert sorted(keys) == sorted(plain.state_dict())
