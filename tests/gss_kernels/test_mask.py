"""The random voxel mask: the published generator, and the rate and independence that are wanted of it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from gss_kernels import CategoryGroups, fused_gss_loss
from gss_kernels.voxel_mask import last_masked_word, philox_words, random_keep
from tests.gss_kernels.oracle import BoolArray, drawn_word, philox

_BATCH, _MODALITIES, _SPATIAL = 2, 6, (31, 29, 37)
_SIGMAS = 5


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_oracle_gives_the_published_words(counter: str, key: str, words: str) -> None:
    """Known answers of the Random123 distribution."""
    numbers = [[int(word, 16) for word in text.split()] for text in (counter, key, words)]
    assert list(philox(numbers[0], numbers[1])) == numbers[2]


@pytest.mark.parametrize("seed", [0, 1, -1, 0x0123_4567_89AB_CDEF, -(2**63)])
def test_words_are_the_oracle_s(seed: int) -> None:
    for first in (0, 2**31 - 1, 2**32 - 3, 2**32, 3 * 2**40 + 17, 2**63 - 3):
        words = [word for block in range(2) for word in philox_words(torch.tensor(seed), first, 3, block)]
        for modality, word in enumerate(words):
            assert word.tolist() == [drawn_word(seed, first + i, modality) for i in range(3)]


def test_keep_compares_words_with_the_ratio() -> None:
    first, count = 2**32 - 40, 80  # across a change of the counter's higher word
    for ratio in (0.2, 0.5, 1.0, 1 / 3):
        keep = random_keep(torch.tensor(5), ratio, 6, first, count)
        want = [[drawn_word(5, i, m) >= ratio * 2**32 for i in range(first, first + count)] for m in range(6)]
        assert keep.tolist() == want


@pytest.mark.parametrize("words", [1, 2, 2**31, 2**32 - 1, 2**32])
def test_a_word_masks_below_the_ratio_only(words: int) -> None:
    assert last_masked_word(words / 2**32) == words - 1
    assert last_masked_word((words - 0.5) / 2**32) == words - 1


def test_a_ratio_of_zero_masks_no_word() -> None:
    assert last_masked_word(0.0) == -1


def measured_keep(seed: int | None, ratio: float) -> BoolArray:
    """The drawn mask `[B * M, *spatial]` as the loss shows it: its gradient vanishes where a voxel is masked."""
    spread = torch.linspace(-1, 1, _BATCH * _MODALITIES * math.prod(_SPATIAL), dtype=torch.float64)
    logits = spread.reshape(_BATCH, _MODALITIES, 1, *_SPATIAL) * torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
    leaf = logits.clone().requires_grad_()
    groups = CategoryGroups(((0,), (1,)))
    fused_gss_loss(leaf, groups, mask_ratio=ratio, seed=seed, backend="cpu").backward()
    assert leaf.grad is not None
    return leaf.grad.ne(0).any(dim=2).flatten(0, 1).numpy()


def correlations(one: BoolArray, other: BoolArray) -> list[float]:
    """Of two masks `[rows, ...]`, for every row; in standard deviations of what independent masks have."""
    pairs = zip(one.reshape(len(one), -1), other.reshape(len(other), -1), strict=True)
    return [float(np.corrcoef(a, b)[0, 1]) * math.sqrt(a.size) for a, b in pairs]


@pytest.mark.parametrize("ratio", [0.01, 0.2, 0.5, 0.9, 0.99])
def test_measured_rate(ratio: float) -> None:
    """Of every modality in every sample, and of all together."""
    masked = ~measured_keep(7, ratio)
    rates = [*masked.mean(axis=(1, 2, 3)), masked.mean()]
    voxels = [math.prod(_SPATIAL)] * len(masked) + [masked.size]
    for rate, count in zip(rates, voxels, strict=True):
        assert abs(rate - ratio) < _SIGMAS * math.sqrt(ratio * (1 - ratio) / count)


@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_modalities_and_samples_are_independent(ratio: float) -> None:
    keep = measured_keep(8, ratio)
    pairs = np.array(list(itertools.combinations(range(len(keep)), 2)))
    one, other = keep[pairs[:, 0]], keep[pairs[:, 1]]
    assert max(map(abs, correlations(one, other))) < _SIGMAS


@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_neighbouring_voxels_are_independent(ratio: float) -> None:
    keep = measured_keep(9, ratio)
    for axis, length in enumerate(_SPATIAL, start=1):
        one, other = (keep.take(range(start, start + length - 1), axis=axis) for start in (0, 1))
        assert max(map(abs, correlations(one, other))) < _SIGMAS


@pytest.mark.parametrize("seed", [0, 41, -1, 2**32 - 1, 2**63 - 1])
def test_consecutive_seeds_are_independent(seed: int) -> None:
    one, other = (measured_keep(number, 0.2) for number in (seed, seed + 1))
    shifted = np.roll(other, -1, axis=-1)
    assert max(map(abs, correlations(one, other) + correlations(one, shifted))) < _SIGMAS


def test_steps_without_a_seed_are_independent() -> None:
    torch.manual_seed(0)
    one, other = (measured_keep(None, 0.2) for _ in range(2))
    assert max(map(abs, correlations(one, other))) < _SIGMAS
