"""The random voxel mask, from the same counter-based generator on every backend.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x32, 10 rounds).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gss_kernels.groups import is_sequence
from gss_kernels.settings import GSSSettings, check_count, check_share
from gss_kernels.tensors import check_seed

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
# The generator takes about seven int64 numbers a voxel: in cache on a CPU, no more than 60 MB elsewhere.
_CHUNK_VOXELS_ON_CPU, _CHUNK_VOXELS = 2**16, 2**20


def draw_voxel_mask(
    seed: int | Tensor,
    *,
    mask_ratio: float = GSSSettings().mask_ratio,
    num_samples: int,
    num_modalities: int,
    spatial: Sequence[int],
    first_sample: int = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """The mask that `fused_gss_loss` draws by `seed`, for all samples of a batch or some of them.

    With it a batch can be computed in parts, one after the other or on several devices: each gets, as `voxel_mask`, the
    mask that its samples have in the whole batch under `seed`.

    Args:
        seed: an int of 64 bits, or a 0-dim int64 tensor.
        mask_ratio: probability with which a voxel is left out, in [0, 1].
        num_samples: B, of the part.
        num_modalities: M.
        spatial: the spatial shape, of one to three axes.
        first_sample: how many samples of the whole batch come before the part.
        device: where to draw; None: that of a seed which is a tensor, else the CPU.

    Returns:
        `[B, M, *spatial]` bool, true where a modality keeps the voxel.

    Raises:
        ValueError: an argument of wrong type, device or value; the message names it.
    """
    key = _key(seed, device)
    check_share("mask_ratio", mask_ratio)
    check_count("num_samples", num_samples, 1)
    check_count("num_modalities", num_modalities, 1)
    check_count("first_sample", first_sample, 0)
    shape = _spatial_shape(spatial)
    num_voxels = math.prod(shape)
    keep = torch.empty(num_samples, num_modalities, num_voxels, dtype=torch.bool, device=key.device)
    size = _CHUNK_VOXELS_ON_CPU if key.device.type == "cpu" else _CHUNK_VOXELS
    for sample, own in enumerate(keep, start=int(first_sample)):
        for start in range(0, num_voxels, size):
            part = own[:, start : start + size]
            part.copy_(random_keep(key, mask_ratio, num_modalities, sample * num_voxels + start, part.shape[1]))
    return keep.view(num_samples, num_modalities, *shape)


def _key(seed: int | Tensor, device: torch.device | str | None) -> Tensor:
    """The seed as a tensor on the device of the mask."""
    if not isinstance(seed, Tensor):
        return check_seed(seed, torch.device("cpu" if device is None else device), or_else="")
    # An empty tensor tells the number of a device that is given without.
    if device is not None and torch.empty(0, device=device).device != seed.device:
        raise ValueError(f"seed: got a tensor on {seed.device}, need it on device, {device}, or an int")
    return check_seed(seed, seed.device, or_else="")


def _spatial_shape(spatial: Sequence[int]) -> tuple[int, ...]:
    if not is_sequence(spatial) or not 1 <= len(spatial) <= 3:
        got = list(spatial) if is_sequence(spatial) else type(spatial).__name__
        raise ValueError(f"spatial: got {got}, need a sequence of one to three sizes")
    for axis, size in enumerate(spatial):
        check_count(f"spatial[{axis}]", size, 1)
    return tuple(int(size) for size in spatial)


def last_masked_word(mask_ratio: float) -> int:
    """Largest random word that still masks a voxel: a word `w` masks if `w < mask_ratio * 2**32`.

    Returns -1 if no word masks. Comparing with the last word instead of the first unmasked one keeps a ratio of 1
    within 32 bits.
    """
    return math.ceil(mask_ratio * 2**32) - 1


def philox_words(seed: Tensor, first: int, count: int, block: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four 32-bit random words for each of `count` counters from `first` on, int64 `[count]` in `[0, 2**32)`.

    The seed is the 64-bit key, `first` the counters' words 0 and 1, of which the last one may not have another word 1,
    `block` word 2 of all; word 3 is 0.
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
    """The mask of `count` voxels, `[M, count]` on the seed's device: true, or 1, where a modality keeps the voxel.

    `first` is `b * N + v` for the first voxel `v` of sample `b`.
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
