"""The random voxel mask, from the same counter-based generator on every backend.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x32, 10 rounds).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def last_masked_word(mask_ratio: float) -> int:
    """Largest random word that still masks a voxel: a word `w` masks if `w < mask_ratio * 2**32`.

    Returns -1 if no word masks. Comparing with the last word instead of the first unmasked one keeps a ratio of 1
    within 32 bits.
    """
    return math.ceil(mask_ratio * 2**32) - 1


def philox_words(seed: Tensor, index: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four 32-bit random words for each index.

    Args:
        seed: 0-dim int64 tensor, the 64-bit key.
        index: int64 tensor of any shape, counter words 0 and 1.
        block: counter word 2; word 3 is 0.

    Returns:
        Four int64 tensors of `index`'s shape with values in `[0, 2**32)`.
    """
    c0, c1 = index & _WORD, (index >> 32) & _WORD
    c2, c3 = torch.full_like(c0, block), torch.zeros_like(c0)
    key0, key1 = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(_ROUNDS):
        # The int64 product wraps, yet its 64 bits are those of the unsigned product, so both halves are exact. Its high
        # half goes on as a word; the low one is cut to a word where it is used.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (product1 >> 32).bitwise_xor_(c1).bitwise_xor_(key0).bitwise_and_(_WORD)
        c2 = (product0 >> 32).bitwise_xor_(c3).bitwise_xor_(key1).bitwise_and_(_WORD)
        c1, c3 = product1, product0
        key0, key1 = key0 + _KEY_STEPS[0], key1 + _KEY_STEPS[1]
    return c0, c1 & _WORD, c2, c3 & _WORD


def random_keep(seed: Tensor, mask_ratio: float, num_modalities: int, index: Tensor) -> Tensor:
    """The mask of some voxels: true where a modality keeps the voxel.

    Args:
        seed: 0-dim int64 tensor.
        mask_ratio: probability of masking a voxel.
        num_modalities: M.
        index: int64 tensor `[n]`, `b * N + v` for voxel `v` of sample `b`.

    Returns:
        bool tensor `[M, n]`.
    """
    words: list[Tensor] = []
    for block in range(math.ceil(num_modalities / 4)):
        words.extend(philox_words(seed, index, block))
    return torch.stack(words[:num_modalities]) > last_masked_word(mask_ratio)
