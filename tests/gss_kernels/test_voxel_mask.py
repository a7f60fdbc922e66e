"""`draw_voxel_mask`: the drawn mask of a batch, and of parts of it."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gss_kernels import BRATS_2018, draw_voxel_mask, fused_gss_loss
from gss_kernels.voxel_mask import _CHUNK_VOXELS_ON_CPU as _CHUNK, random_keep
from tests.gss_kernels.behaviours import random_tensor
from tests.gss_kernels.oracle import drawn_word

_SHAPE = (5, 4, 4, 3, 7)
_SIZES: dict[str, Any] = {"num_samples": 2, "num_modalities": 3, "spatial": (3, 5)}


def loss_and_gradient(logits: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """By sample and modality."""
    leaf = logits.clone().requires_grad_()
    losses = fused_gss_loss(leaf, BRATS_2018, **options, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), gradient


@pytest.mark.parametrize("mask_ratio", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("cuts", [(0, 5), (0, 2, 5), (0, 1, 2, 3, 4, 5), (0, 4, 5)])
def test_parts_with_drawn_masks_are_the_batch_with_a_seed(cuts: tuple[int, ...], mask_ratio: float) -> None:
    logits = random_tensor("cpu", _SHAPE).double()
    want = loss_and_gradient(logits, seed=9, mask_ratio=mask_ratio)
    parts = []
    for start, stop in itertools.pairwise(cuts):
        keep = draw_voxel_mask(
            9,
            mask_ratio=mask_ratio,
            num_samples=stop - start,
            num_modalities=4,
            spatial=_SHAPE[3:],
            first_sample=start,
        )
        parts.append(loss_and_gradient(logits[start:stop], voxel_mask=keep))
    for whole, cut in zip(want, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(cut), whole, rtol=1e-12, atol=0)


def test_mask_follows_the_generator() -> None:
    """Sample b, voxel v has the counter b N + v, and each modality a word of its own."""
    keep = draw_voxel_mask(5, mask_ratio=0.3, num_samples=2, num_modalities=6, spatial=(3, 5), first_sample=7)
    assert keep.shape == (2, 6, 3, 5)
    assert keep.dtype == torch.bool
    assert keep.is_contiguous()
    for b, m, v in np.ndindex(2, 6, 15):
        word = drawn_word(5, (7 + b) * 15 + v, m)
        assert bool(keep.flatten(2)[b, m, v]) == (word >= 0.3 * 2**32)


def test_volumes_larger_than_a_chunk_are_drawn_alike() -> None:
    voxels = _CHUNK + 3
    keep = draw_voxel_mask(1, num_samples=2, num_modalities=2, spatial=(voxels,), first_sample=3)
    want = random_keep(torch.tensor(1), 0.2, 2, 3 * voxels, 2 * voxels)
    assert torch.equal(keep.transpose(0, 1).flatten(1), want)


@pytest.mark.parametrize(("mask_ratio", "kept"), [(0, True), (0.0, True), (1, False), (1.0, False)])
def test_ratios_at_the_ends(mask_ratio: float, kept: bool) -> None:
    assert draw_voxel_mask(0, mask_ratio=mask_ratio, **_SIZES).eq(kept).all()


def test_seed_may_be_a_tensor() -> None:
    want = draw_voxel_mask(-1, **_SIZES)
    for seed in (torch.tensor(-1), 2**64 - 1, np.int64(-1)):
        assert torch.equal(draw_voxel_mask(seed, **_SIZES), want)  # type: ignore[arg-type]
    assert torch.equal(draw_voxel_mask(torch.tensor(-1), **_SIZES, device="cpu"), want)
    assert not torch.equal(draw_voxel_mask(0, **_SIZES), want)


def test_default_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    draw_voxel_mask(0, **_SIZES)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": None}, "seed: got NoneType, need an int or a 0-dim int64 tensor"),
        ({"seed": "1"}, "seed: got str, need an int or a 0-dim int64 tensor"),
        ({"seed": 2**64}, "seed: got 18446744073709551616, need a number of 64 bits"),
        ({"seed": torch.tensor([1])}, "seed: got a tensor of shape [1] and torch.int64, need 0-dim int64"),
        (
            {"seed": torch.tensor(1), "device": "meta"},
            "seed: got a tensor on cpu, need it on device, meta, or an int",
        ),
        ({"mask_ratio": 1.5}, "mask_ratio: got 1.5, need a number from 0 to 1"),
        ({"num_samples": 0}, "num_samples: got 0, need an integer of 1 or more"),
        ({"num_samples": 2.0}, "num_samples: got 2.0, need an integer of 1 or more"),
        ({"num_modalities": True}, "num_modalities: got True, need an integer of 1 or more"),
        ({"first_sample": -1}, "first_sample: got -1, need an integer of 0 or more"),
        ({"spatial": 3}, "spatial: got int, need a sequence of one to three sizes"),
        ({"spatial": ()}, "spatial: got [], need a sequence of one to three sizes"),
        ({"spatial": (1, 2, 3, 4)}, "spatial: got [1, 2, 3, 4], need a sequence of one to three sizes"),
        ({"spatial": (3, 0)}, "spatial[1]: got 0, need an integer of 1 or more"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"seed": 0} | _SIZES | options
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        draw_voxel_mask(arguments.pop("seed"), **arguments)
