"""The GSS loss: every backend that runs here, and the two plain formulations."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from benchmarks.baselines.gss_loss import eager_loss, published_steps_loss
from benchmarks.measuring import Measure, Size
from benchmarks.results_table import EAGER, PUBLISHED
from gss_kernels import BRATS_2015, BRATS_2018, CategoryGroups, fused_gss_loss
from gss_kernels.settings import Backend

Direction = Literal["forward", "forward + backward"]
Loss = Callable[[Tensor, CategoryGroups], Tensor]

_GPU = torch.cuda.is_available()
_BACKENDS: list[Backend] = ["reference", "triton" if _GPU else "cpu"]
if _GPU and importlib.util.find_spec("triton") is None:
    _BACKENDS.remove("triton")
_LOSSES: dict[str, Loss] = {
    EAGER: eager_loss,
    PUBLISHED: published_steps_loss,
    **{backend: functools.partial(fused_gss_loss, backend=backend) for backend in _BACKENDS},
}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16} if _GPU else {"float32": torch.float32}
_EDGE = {"full": 128, "small": 64} if _GPU else {"full": 48, "small": 24}
_SAMPLES, _MODALITIES = 2, 4
_PASSES = {"forward": 1, "forward + backward": 3}


def _draw_logits(num_categories: int, edge: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Logits that often agree and are often confident, so that every route of the vote is taken."""
    generator = torch.Generator(device).manual_seed(0)
    draw = functools.partial(torch.randn, generator=generator, device=device)
    shared = 4 * draw(_SAMPLES, 1, num_categories, edge, edge, edge)
    own = 2 * draw(_SAMPLES, _MODALITIES, num_categories, edge, edge, edge)
    return (shared + own).to(dtype)


# The eager formulation comes first in each group: the others' ratios are taken to it.
@pytest.mark.parametrize("name", _LOSSES)
@pytest.mark.parametrize("direction", _PASSES)
@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("groups", [BRATS_2018, BRATS_2015], ids=["C4", "C5"])
def test_loss(
    measure: Measure,
    device: torch.device,
    size: Size,
    groups: CategoryGroups,
    dtype: str,
    direction: Direction,
    name: str,
) -> None:
    loss, edge = _LOSSES[name], _EDGE[size]
    logits = _draw_logits(groups.num_categories, edge, _DTYPES[dtype], device)
    logits.requires_grad_(direction != "forward")

    def call() -> None:
        logits.grad = None
        value = loss(logits, groups)
        if logits.requires_grad:
            value.backward()

    measure(
        call,
        group=f"loss, {_SAMPLES} x {_MODALITIES} x {groups.num_categories} x {edge}^3 {dtype}, {direction}",
        name=name,
        floor_bytes=_PASSES[direction] * logits.nbytes,
    )
