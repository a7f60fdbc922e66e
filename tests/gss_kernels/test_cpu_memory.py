"""Memory of the CPU backend at the size that its targets name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.memory import peak_extra_bytes
from gss_kernels import BRATS_2018, fused_gss_loss, fused_gss_objective, fused_segmentation_loss

_EDGE = 80


@pytest.mark.parametrize(("name", "megabytes"), [("gss", 64), ("objective", 64), ("segmentation", 32)], ids=str)
def test_needs_little_more_than_the_gradient(name: str, megabytes: float) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 4, _EDGE, _EDGE, _EDGE) if name == "segmentation" else (2, 4, 4, _EDGE, _EDGE, _EDGE)
    logits = torch.randn(shape, generator=generator).requires_grad_()
    labels = torch.randint(0, 4, (2, _EDGE, _EDGE, _EDGE), generator=generator).to(torch.uint8)

    def loss() -> Tensor:
        if name == "gss":
            return fused_gss_loss(logits, BRATS_2018)
        if name == "objective":
            return fused_gss_objective(logits, labels, BRATS_2018)
        return sum(fused_segmentation_loss(logits, labels), torch.zeros(()))

    def step() -> None:
        torch.autograd.grad(loss(), logits)

    extra = peak_extra_bytes(step, torch.device("cpu"))
    assert logits.nbytes <= extra <= logits.nbytes + megabytes * 1e6
