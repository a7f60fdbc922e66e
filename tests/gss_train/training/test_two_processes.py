"""Two processes that train together do what one does with the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gss_train.common.processes import ALONE
from tests.gss_train.training.together import CASES, VALIDATED, make_subjects, train_and_validate

PROGRAM = Path(__file__).parent / "together.py"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes has, by case."""
    folder = tmp_path_factory.mktemp("together")
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(folder)]
    done = subprocess.run(
        command, env={**os.environ, **shared}, stderr=subprocess.PIPE, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process has, by case."""
    subjects = make_subjects(tmp_path_factory.mktemp("alone"))
    return {case: train_and_validate(case, subjects, ALONE) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_big_batch(case: str, together: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    for rank in range(2):
        for step in range(2):
            own, expected = (
                torch.cat([part.flatten() for part in one["gradients"][step]])
                for one in (together[rank][case], alone[case])
            )
            # The second step begins with weights that differ in rounding, which Adam's first step magnifies.
            assert float((own - expected).norm() / expected.norm()) < (2e-6, 2e-2)[step]


@pytest.mark.parametrize("case", CASES)
def test_both_have_the_same_weights_to_the_bit(case: str, together: list[dict[str, Any]]) -> None:
    first, second = (results[case]["weights"] for results in together)
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("case", CASES)
def test_what_they_report_is_that_of_the_big_batch(
    case: str, together: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for results in together:
        assert results[case]["terms"] == [pytest.approx(terms, rel=1e-4, abs=1e-6) for terms in alone[case]["terms"]]
        assert results[case]["norms"] == pytest.approx(alone[case]["norms"], rel=1e-3)


def test_the_validation_table_is_the_same(together: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """Of weights that differ in rounding, so that single voxels may differ."""
    first, second, expected = (results[VALIDATED] for results in (*together, alone))
    for kind in ("dice", "mean_dice", "validated vote"):
        assert first[kind] == second[kind]
    assert first["dice"].keys() == expected["dice"].keys()
    for subset, regions in expected["dice"].items():
        assert first["dice"][subset] == pytest.approx(regions, abs=2e-3)
    for kind in ("routes", "dice"):
        for name, shares in expected["validated vote"][kind].items():
            assert first["validated vote"][kind][name] == pytest.approx(shares, abs=2e-3)
