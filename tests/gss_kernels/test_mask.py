"""The random voxel mask: the published generator, and the rate and independence that are wanted of it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from gss_kernels.philox import last_masked_word, philox_words, random_keep
from tests.gss_kernels.oracle import drawn_word, philox

_VOXELS = 100_000


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
    index = [0, 1, 2**31, 2**32 - 1, 2**32, 3 * 2**40 + 17, 2**63 - 1]
    words = [word for block in range(2) for word in philox_words(torch.tensor(seed), torch.tensor(index), block)]
    for modality, word in enumerate(words):
        assert word.tolist() == [drawn_word(seed, i, modality) for i in index]


def test_keep_compares_words_with_the_ratio() -> None:
    index = torch.arange(2**32 - 40, 2**32 + 40)
    for ratio in (0.2, 0.5, 1.0, 1 / 3):
        keep = random_keep(torch.tensor(5), ratio, 6, index)
        want = [[drawn_word(5, i, m) >= ratio * 2**32 for i in index.tolist()] for m in range(6)]
        assert keep.tolist() == want


@pytest.mark.parametrize("words", [1, 2, 2**31, 2**32 - 1, 2**32])
def test_a_word_masks_below_the_ratio_only(words: int) -> None:
    assert last_masked_word(words / 2**32) == words - 1
    assert last_masked_word((words - 0.5) / 2**32) == words - 1


def test_a_ratio_of_zero_masks_no_word() -> None:
    assert last_masked_word(0.0) == -1


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.9])
def test_rate(ratio: float) -> None:
    masked = 1 - random_keep(torch.tensor(1), ratio, 6, torch.arange(_VOXELS)).double().mean(dim=1)
    deviation = math.sqrt(ratio * (1 - ratio) / _VOXELS)
    assert (masked - ratio).abs().max() < 4 * deviation


def test_modalities_voxels_and_seeds_are_independent() -> None:
    index = torch.arange(_VOXELS)
    keep = torch.cat([random_keep(torch.tensor(seed), 0.3, 6, index) for seed in (1, 2)])
    shifted = random_keep(torch.tensor(1), 0.3, 6, index + 1)
    rows = torch.cat([keep, shifted]).double().numpy()
    correlation = np.corrcoef(rows)
    pairs = [abs(float(correlation[i, j])) for i, j in itertools.combinations(range(len(rows)), 2)]
    assert max(pairs) < 4.5 / math.sqrt(_VOXELS)
