"""More voxels and more samples than numbers of 32 and of 16 bits count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gss_kernels import CategoryGroups, fused_gss_loss, fused_gss_objective, fused_segmentation_loss
from gss_kernels.settings import Backend
from tests.gpu.losses import NAMES, normal_logits, random_labels, require_gpu_memory

_GROUPS = CategoryGroups(((0,), (1,), (0, 1), (1,), (0,)))
_MODALITIES, _CATEGORIES = 2, _GROUPS.num_categories
# 5 categories of 2**29 voxels and a few: the last category's begin beyond 2**31 elements from the first one's.
_PATTERN, _REPEATS = 513, 2**20


def value_of(name: str, logits: Tensor, labels: Tensor, backend: Backend = "auto", **options: Any) -> Tensor:
    """One of the losses, of all modalities together."""
    if name == "gss":
        return fused_gss_loss(logits, _GROUPS, **options, backend=backend)
    if name == "objective":
        return fused_gss_objective(logits, labels, _GROUPS, **options, backend=backend)
    return sum(fused_segmentation_loss(logits[:, 0], labels, backend=backend), torch.zeros((), device="cuda"))


def value_and_gradient(name: str, logits: Tensor, labels: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    leaf = logits.requires_grad_()
    value = value_of(name, leaf, labels, **options)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@pytest.mark.xdist_group("most of the memory")
@pytest.mark.parametrize("name", NAMES)
def test_more_than_2_31_logits(name: str) -> None:
    """A volume of one pattern over and over has the pattern's loss, and its gradient over and over, divided."""
    # Logits and gradient in bfloat16, and for the slice of the segmentation loss half of that again.
    require_gpu_memory(3 * 2 * _MODALITIES * _CATEGORIES * _PATTERN * _REPEATS)
    pattern = normal_logits((1, _MODALITIES, _CATEGORIES, _PATTERN), torch.bfloat16)
    pattern_labels = random_labels((1, _PATTERN), _CATEGORIES)
    options: dict[str, Any] = {} if name == "segmentation" else {"mask_ratio": 0.0}
    want, want_gradient = value_and_gradient(name, pattern, pattern_labels, **options)
    logits = pattern.detach().repeat(1, 1, 1, _REPEATS)
    assert logits[0, 0].numel() > 2**31
    value, gradient = value_and_gradient(name, logits, pattern_labels.repeat(1, _REPEATS), **options)
    torch.testing.assert_close(value, want, rtol=1e-4, atol=0)
    want_gradient = want_gradient[0].float() / _REPEATS
    for m in range(_MODALITIES):
        for c in range(_CATEGORIES):
            repeats = gradient[0, m, c].view(_REPEATS, _PATTERN)
            assert bool((repeats == repeats[:1]).all()), (m, c)
            scale = float(want_gradient[m].abs().max())
            torch.testing.assert_close(repeats[0].float(), want_gradient[m, c], rtol=2**-6, atol=1e-3 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_more_than_65535_samples(name: str) -> None:
    """Rounding flips the vote of a few voxels in a million; those alone may differ."""
    samples = 70_001
    logits = normal_logits((samples, _MODALITIES, _CATEGORIES, 3))
    labels = random_labels((samples, 3), _CATEGORIES)
    options: dict[str, Any] = {} if name == "segmentation" else {"seed": 4}
    results = [value_and_gradient(name, logits.clone(), labels, backend=b, **options) for b in ("triton", "reference")]
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=0)
    got, want = (gradient.double() for _, gradient in results)
    unequal = ~torch.isclose(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))
    assert int(unequal.any(dim=2).any(dim=1).sum()) <= 20
    if name == "gss":
        losses = [
            fused_gss_loss(logits, _GROUPS, reduction="none", **options, backend=b) for b in ("triton", "reference")
        ]
        unequal = ~torch.isclose(*losses, rtol=1e-3, atol=1e-5)
        assert int(unequal.any(dim=1).sum()) <= 20
