"""What Triton's interpreter is given to run, and what came of it; see `tests.gss_kernels.interpreted`.

It takes about a second for the smallest launch, so of the supervised losses it gets a choice: every kind of kernel,
layout and dtype once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gss_kernels.settings import Backend
from tests.gss_kernels import (
    behaviours,
    objective_behaviours,
    objective_cases,
    segmentation_behaviours,
    segmentation_cases,
    statistics_behaviours,
)

Behaviour = Callable[[Backend, str], None]

_ROOT = Path(__file__).parents[2]
# The interpreter truncates where hardware rounds to the nearest bfloat16: twice the error of what is stored.
TRUNCATION = 2.0**-7


def _named(prefix: str, *chosen: Behaviour) -> dict[str, Behaviour]:
    return {f"{prefix}: {behaviour.__name__}": behaviour for behaviour in chosen}


def _statistics_of(name: str) -> Behaviour:
    case = statistics_behaviours.CASES[name]

    def statistics_agree_with_the_count(backend: Backend, device: str) -> None:
        statistics_behaviours.agrees_with_the_count(case, backend, device)

    return statistics_agree_with_the_count


DISTILLATION = {behaviour.__name__: behaviour for behaviour in behaviours.KERNELS + behaviours.FUSED}
SEGMENTATION_CASES = {
    f"segmentation: {name}": segmentation_cases.TABLE[name]
    for name in (
        "two_categories",
        "eight_categories",
        "five_categories",
        "none_available",
        "one_voxel",
        "one_voxel_each",
        "channels_last",
        "expanded",
        "float16",
        "float16_probabilities",
        "many_blocks",
        "many_blocks_probabilities",
    )
}
OBJECTIVE_CASES = {
    f"objective: {name}": objective_cases.TABLE[name]
    for name in (
        "brats_2015",
        "one_and_none",
        "one_and_none_released",
        "temperature_3.7",
        "bfloat16",
        "float16",
        "sliced",
        "permuted",
        "one_voxel",
        "many_blocks",
        "drawn_6_3x8",
        "drawn_8_5x3",
    )
}
SUPERVISION = (
    _named("segmentation", *segmentation_behaviours.KERNELS, *segmentation_behaviours.FUSED)
    | _named("objective", *objective_behaviours.KERNELS, *objective_behaviours.FUSED, *objective_behaviours.UNCHECKED)
    | _named("statistics", *statistics_behaviours.KERNELS)
    | {f"statistics: {name}": _statistics_of(name) for name in ("missing", "released", "leader_sets", "many_blocks")}
)


@dataclass(frozen=True)
class Outcome:
    """Of one half: the results of the cases, and tracebacks, empty where all is well, of cases and behaviours."""

    results: dict[str, np.ndarray]
    errors: dict[str, str]

    def require(self, name: str) -> None:
        if self.errors[name]:
            pytest.fail(self.errors[name], pytrace=False)

    def fields(self, name: str) -> dict[str, np.ndarray]:
        """The result of a case, by name of the field."""
        self.require(name)
        prefix = f"{name}/"
        return {key.removeprefix(prefix): value for key, value in self.results.items() if key.startswith(prefix)}


def interpret(half: str, folder: Path) -> Outcome:
    """Run one half, "distillation" or "supervision", in a process of its own."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.gss_kernels.interpreted", half, str(folder)],
        cwd=_ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    with np.load(folder / "results.npz", allow_pickle=False) as results:
        return Outcome(dict(results), json.loads((folder / "errors.json").read_text()))
