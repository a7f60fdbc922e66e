"""The engine's whole training step by preset, and the share of it that the losses and the augmentation take."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from benchmarks.measuring import Measure, Size
from benchmarks.network_steps import benchmark_edge
from benchmarks.results_table import PAPER, PLAIN
from benchmarks.whole_steps import WholeStep, WholeStepSettings
from gss_train.config import NetworkName, PickedPreset, preset_config
from gss_train.models import NETWORKS

pytestmark = pytest.mark.long


class _Row(NamedTuple):
    preset: PickedPreset
    gss: bool = True
    plain: bool = False


_ROWS = {
    PLAIN: _Row("paper", plain=True),
    PAPER: _Row("paper"),
    "lean": _Row("lean"),
    "paper, without GSS": _Row("paper", gss=False),
    "lean, without GSS": _Row("lean", gss=False),
}


@pytest.mark.parametrize("name", _ROWS)
@pytest.mark.parametrize("network", NETWORKS)
def test_training_step(
    measure: Measure, device: torch.device, size: Size, crop_edge: int | None, network: NetworkName, name: str
) -> None:
    row = _ROWS[name]
    if size == "small" and not row.gss:
        pytest.skip("a quick check takes the steps with GSS")
    settings = WholeStepSettings(
        network,
        row.preset,
        edge=benchmark_edge(network, size, device, crop_edge),
        batch=preset_config(row.preset, network).training.batch_size if device.type == "cuda" else 1,
        width=4 if size == "small" else None,
        gss=row.gss,
        plain=row.plain,
    )
    try:
        step = WholeStep(settings, device)
        measure(
            step,
            group=(
                f"whole training step, {network}, width {settings.width or 'published'}, "
                f"{settings.batch} x {settings.edge}^3, C = 4"
            ),
            name=name,
            samples=settings.batch,
            steps=True,
            parts={"losses": step.losses, "augmentation": step.augmentation},
        )
    except torch.OutOfMemoryError as error:
        pytest.skip(f"does not fit into the GPU's memory: {str(error).partition('.')[0]}")
