"""Training steps as they are benchmarked."""

from __future__ import annotations

import pytest
import torch

from benchmarks.network_steps import StepSettings, build, resident_growth
from gss_train.models.registry import NETWORKS


def test_plain_and_lean_differ_in_their_making_alone() -> None:
    """But for what the lean one leaves out: mmFormer's eight tensors that no prediction depends on."""
    for network in NETWORKS:
        plain, lean = (
            sum(parameter.numel() for parameter in build(StepSettings(network, variant, 32, width=4)).parameters())
            for variant in ("plain", "lean")
        )
        assert 0 <= plain - lean <= (200_000 if network == "mmformer" else 0)


def test_a_fresh_process_grows_by_what_a_step_keeps_however_large_the_one_that_starts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # test processes run side by side
    ballast = torch.ones(500_000_000, dtype=torch.uint8)
    small, large = (resident_growth(StepSettings("uhved", "plain", edge, width=2)) for edge in (16, 32))
    assert large > small + 100e6
    assert ballast.nbytes > large  # else it could have hidden nothing
