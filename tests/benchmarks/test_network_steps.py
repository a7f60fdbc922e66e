"""Training steps as they are benchmarked."""

from __future__ import annotations

import pytest
import torch

from benchmarks.network_steps import StepSettings, build, resident_growth, training_step
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
    settings = StepSettings("uhved", "plain", 32, width=2)
    ballast = torch.ones(500_000_000, dtype=torch.uint8)
    # Besides comes what an operation needs while it runs. A process as large as this one would not grow at all.
    assert 1.5 * bytes_kept(settings) < resident_growth(settings) < ballast.nbytes


def bytes_kept(settings: StepSettings) -> int:
    """Of the tensors that a step keeps for its backward pass, which live at the same time."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    step = training_step(settings, torch.device("cpu"))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(kept.values())
