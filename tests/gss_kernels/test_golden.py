"""What the public code computes, to its digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gss_kernels import BRATS_2018, fused_gss_loss, gss_soft_targets

_DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", ["default", "alt"])
def test_released_code(name: str, backend: str) -> None:
    with np.load(_DATA / f"gss_released_{name}.npz", allow_pickle=False) as file:
        golden = dict(file)
    names = ("temperature", "leader_threshold", "member_threshold", "leader_blend")
    vote = dict(zip(names, golden["params"].tolist(), strict=True)) | {"semantics": "released", "backend": backend}
    logits = torch.from_numpy(golden["logits"]).requires_grad_()
    losses = fused_gss_loss(
        logits,
        BRATS_2018,
        voxel_mask=torch.from_numpy(golden["keep"]),
        divergence="cross_entropy",
        reduction="none",
        **vote,
    )
    losses.mean(dim=0).sum().backward()
    target = gss_soft_targets(logits, BRATS_2018, **vote)
    np.testing.assert_allclose(losses.detach().mean(dim=0).numpy(), golden["loss_per_modality"], rtol=1e-5)
    np.testing.assert_allclose(target.numpy(), golden["soft_target"], rtol=1e-5, atol=1e-7)
    # Entries of the gradient are differences, so relative to the largest.
    largest = float(np.abs(golden["grad"]).max())
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), golden["grad"], rtol=1e-5, atol=1e-5 * largest)
