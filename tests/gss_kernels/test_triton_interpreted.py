"""The Triton kernels against the oracle without a GPU, in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.gss_kernels.behaviours import FUSED, KERNELS
from tests.gss_kernels.cases import TABLE, Result, check

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
_ROOT = Path(__file__).parents[2]
# The interpreter truncates where hardware rounds to the nearest bfloat16.
_TRUNCATION = 2.0**-7


@dataclass(frozen=True)
class Outcome:
    results: dict[str, np.ndarray]
    errors: dict[str, str]

    def require(self, name: str) -> None:
        if self.errors[name]:
            pytest.fail(self.errors[name], pytrace=False)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("interpreted")
    process = subprocess.run(
        [sys.executable, "-m", "tests.gss_kernels.interpreted", str(folder)],
        cwd=_ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    with np.load(folder / "results.npz", allow_pickle=False) as results:
        return Outcome(dict(results), json.loads((folder / "errors.json").read_text()))


@pytest.mark.parametrize("name", TABLE)
def test_case_agrees_with_oracle(outcome: Outcome, name: str) -> None:
    outcome.require(name)
    case = TABLE[name]
    result = Result(*(outcome.results[f"{name}/{key}"] for key in ("loss", "gradient", "target")))
    check(case, result, storage=_TRUNCATION if case.dtype == torch.bfloat16 else None)


@pytest.mark.parametrize("name", [behaviour.__name__ for behaviour in KERNELS + FUSED])
def test_behaviour(outcome: Outcome, name: str) -> None:
    outcome.require(name)


@pytest.mark.parametrize("name", ["mask_index_needs_more_than_32_bits", "category_offset_needs_more_than_32_bits"])
def test_addresses_beyond_32_bits(outcome: Outcome, name: str) -> None:
    outcome.require(name)
