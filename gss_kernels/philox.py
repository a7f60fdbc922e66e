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


def philox_words(seed: Tensor, first: int, count: int, block: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four 32-bit random words for each of `count` counters from `first` on.

    Args:
        seed: 0-dim int64 tensor, the 64-bit key.
        first: of the counters' words 0 and 1; the last one may not have another word 1.
        count: how many.
        block: word 2 of all counters; word 3 is 0.

    Returns:
        Four int64 tensors `[count]` on the seed's device with values in `[0, 2**32)`.
    """
    # An int64 product wraps, yet its 64 bits are those of the unsigned product, so both halves are exact. Its high half
    # goes on as a word; the low one is cut to a word where it is used. In place, as memory is what takes the time.
    key = [seed & _WORD, (seed >> 32) & _WORD]
    c0 = torch.arange(first & _WORD, (first & _WORD) + count, device=seed.device)
    # Of the first two rounds half is the same for all counters: words 1 to 3 are.
    product = block * _MULTIPLIERS[1]
    same = (product >> 32) ^ (first >> 32) ^ key[0]
    c3 = c0.mul_(_MULTIPLIERS[0])
    c2 = (c3 >> 32).bitwise_and_(_WORD).bitwise_xor_(key[1])
    key = [key[0] + _KEY_STEPS[0], key[1] + _KEY_STEPS[1]]
    same_product = same * _MULTIPLIERS[0]
    c1 = c2 * _MULTIPLIERS[1]
    c0 = (c1 >> 32).bitwise_xor_((product & _WORD) ^ key[0]).bitwise_and_(_WORD)
    c2 = c3.bitwise_xor_((same_product >> 32) ^ key[1]).bitwise_and_(_WORD)
    c3 = (same_product & _WORD).expand(count).clone()
    product0, product1 = torch.empty_like(c0), torch.empty_like(c0)
    for _ in range(2, _ROUNDS):
        key = [key[0] + _KEY_STEPS[0], key[1] + _KEY_STEPS[1]]
        torch.mul(c0, _MULTIPLIERS[0], out=product0)
        torch.mul(c2, _MULTIPLIERS[1], out=product1)
        torch.bitwise_right_shift(product1, 32, out=c0).bitwise_xor_(c1).bitwise_xor_(key[0]).bitwise_and_(_WORD)
        torch.bitwise_right_shift(product0, 32, out=c2).bitwise_xor_(c3).bitwise_xor_(key[1]).bitwise_and_(_WORD)
        c1, product1 = product1, c1
        c3, product0 = product0, c3
    return c0, c1.bitwise_and_(_WORD), c2, c3.bitwise_and_(_WORD)


def random_keep(
    seed: Tensor, mask_ratio: float, num_modalities: int, first: int, count: int, dtype: torch.dtype = torch.bool
) -> Tensor:
    """The mask of some voxels: true, or 1, where a modality keeps the voxel.

    Args:
        seed: 0-dim int64 tensor.
        mask_ratio: probability of masking a voxel.
        num_modalities: M.
        first: `b * N + v` for the first voxel `v` of sample `b`.
        count: how many voxels.
        dtype: of the result.

    Returns:
        `[M, count]` on the seed's device.
    """
    keep = torch.empty(num_modalities, count, dtype=dtype, device=seed.device)
    last = last_masked_word(mask_ratio)
    start = first
    while start < first + count:
        # A stretch ends where the counter's higher word changes.
        stop = min(first + count, (start // 2**32 + 1) * 2**32)
        for modality in range(num_modalities):
            if modality % 4 == 0:
                words = philox_words(seed, start, stop - start, modality // 4)
            torch.gt(words[modality % 4], last, out=keep[modality, start - first : stop - first])
        start = stop
    return keep
