"""The voxel mask that the losses draw, as a tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gss_kernels.groups import is_sequence
from gss_kernels.philox import random_keep
from gss_kernels.settings import GSSSettings, check_count, check_mask_ratio
from gss_kernels.tensors import check_seed

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
    check_mask_ratio(mask_ratio)
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
