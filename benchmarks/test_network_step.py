"""A training step of every network: plain against lean, with and without group self-support, in time and memory."""

from __future__ import annotations

import pytest
import torch

from benchmarks.measuring import Figures, Measure, Size
from benchmarks.network_steps import (
    VARIANTS,
    StepSettings,
    Variant,
    benchmark_edge,
    resident_growth,
    training_step,
)
from gss_train.models import NETWORKS

_GPU = torch.cuda.is_available()
_WITHOUT_GSS = "lean, without GSS"
_CHECKPOINTING_IN_BFLOAT16 = "lean, checkpointing, bfloat16"
_LONG = pytest.mark.long


@pytest.mark.parametrize(
    "name",
    [
        *VARIANTS[:2],
        *(pytest.param(own, marks=_LONG) for own in (VARIANTS[2], _WITHOUT_GSS, _CHECKPOINTING_IN_BFLOAT16)),
    ],
)
@pytest.mark.parametrize("network", [pytest.param(own, marks=() if own == "rfnet" else _LONG) for own in NETWORKS])
def test_network_step(
    measure: Measure, device: torch.device, size: Size, crop_edge: int | None, network: str, name: str
) -> None:
    if size == "small" and name not in {"plain", _CHECKPOINTING_IN_BFLOAT16}:
        pytest.skip("a quick check takes the plain variant and the one with everything")
    variants: dict[str, Variant] = {_WITHOUT_GSS: "lean", _CHECKPOINTING_IN_BFLOAT16: "lean, checkpointing"}
    edge = benchmark_edge(network, size, device, crop_edge)
    settings = StepSettings(
        network,
        variant=variants.get(name) or name,  # type: ignore[arg-type]
        edge=edge,
        width=4 if size == "small" else None,
        batch=2 if _GPU else 1,
        gss=name != _WITHOUT_GSS,
        bfloat16=name == _CHECKPOINTING_IN_BFLOAT16,
    )
    resident: Figures = {}
    if not _GPU and size == "full":
        resident["resident_growth_mb"] = resident_growth(settings) / 1e6
    measure(
        training_step(settings, device),
        group=f"training step, {network}, width {settings.width or 'published'}, {settings.batch} x {edge}^3, C = 5",
        name=name,
        figures=resident,
    )
