"""The Triton kernels with supervision and statistics against the oracles without a GPU, in Triton's interpreter."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from tests.gss_kernels import objective_cases, segmentation_cases
from tests.gss_kernels.interpretation import (
    OBJECTIVE_CASES,
    SEGMENTATION_CASES,
    SUPERVISION,
    TRUNCATION,
    Outcome,
    interpret,
)
from tests.gss_kernels.objective_cases import ObjectiveResult
from tests.gss_kernels.segmentation_cases import SegmentationResult

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return interpret("supervision", tmp_path_factory.mktemp("interpreted"))


@pytest.mark.parametrize("name", SEGMENTATION_CASES)
def test_segmentation_agrees_with_oracle(outcome: Outcome, name: str) -> None:
    segmentation_cases.check(SEGMENTATION_CASES[name], SegmentationResult(**outcome.fields(name)))


@pytest.mark.parametrize("name", OBJECTIVE_CASES)
def test_objective_agrees_with_oracles(outcome: Outcome, name: str) -> None:
    case = OBJECTIVE_CASES[name]
    storage = TRUNCATION if case.call.dtype == torch.bfloat16 else None
    objective_cases.check(case, ObjectiveResult(**outcome.fields(name)), storage=storage)


@pytest.mark.parametrize("name", SUPERVISION)
def test_behaviour(outcome: Outcome, name: str) -> None:
    outcome.require(name)
