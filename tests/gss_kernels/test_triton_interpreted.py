"""The Triton kernels of the GSS loss against the oracle without a GPU, in Triton's interpreter."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from tests.gss_kernels.cases import TABLE, Result, check
from tests.gss_kernels.interpretation import DISTILLATION, TRUNCATION, Outcome, interpret

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return interpret("distillation", tmp_path_factory.mktemp("interpreted"))


@pytest.mark.parametrize("name", TABLE)
def test_case_agrees_with_oracle(outcome: Outcome, name: str) -> None:
    case = TABLE[name]
    result = Result(**outcome.fields(name))
    check(case, result, storage=TRUNCATION if case.dtype == torch.bfloat16 else None)


@pytest.mark.parametrize("name", DISTILLATION)
def test_behaviour(outcome: Outcome, name: str) -> None:
    outcome.require(name)


@pytest.mark.parametrize(
    "name",
    [
        "mask_index_needs_more_than_32_bits",
        "category_offset_needs_more_than_32_bits",
        "voxels_may_lie_far_apart",
        "every_number_of_voxels_per_thread_will_do",
    ],
)
def test_addresses_and_blocks(outcome: Outcome, name: str) -> None:
    outcome.require(name)
