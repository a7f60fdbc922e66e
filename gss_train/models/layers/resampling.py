"""Trilinear upsampling."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional


def upsample(x: Tensor, factor: int) -> Tensor:
    """Trilinear upsampling that keeps the corner voxels in place (`align_corners=True`).

    On the CPU in float32 and float64 it is three matrix products, one per axis: PyTorch's own kernel takes several
    times as long there, forward and backward. The two differ by rounding.

    Args:
        x: `[B, channels, D, H, W]`.
        factor: how many times finer each axis becomes; 1 returns x itself.

    Returns:
        `[B, channels, factor * D, factor * H, factor * W]` in x's dtype.
    """
    if factor == 1:
        return x
    if x.device.type != "cpu" or x.dtype not in {torch.float32, torch.float64}:
        return functional.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=True)
    with torch.autocast("cpu", enabled=False):
        return _upsample_by_products(x, factor)


def _upsample_by_products(x: Tensor, factor: int) -> Tensor:
    batch, channels, depth, height, width = x.shape
    along_depth, along_height, along_width = (
        _interpolation_matrix(length, factor, x.dtype) for length in (depth, height, width)
    )
    x = along_depth @ x.reshape(batch * channels, depth, height * width)
    x = along_height @ x.reshape(batch * channels * factor * depth, height, width)
    x = x.reshape(-1, width) @ along_width.T
    return x.reshape(batch, channels, factor * depth, factor * height, factor * width)


@lru_cache(maxsize=64)
def _interpolation_matrix(length: int, factor: int, dtype: torch.dtype) -> Tensor:
    """The matrix `[factor * length, length]` of linear interpolation between fixed end points."""
    with torch.inference_mode(False), torch.no_grad():
        unit_vectors = torch.eye(length, dtype=dtype)[None]
        columns = functional.interpolate(unit_vectors, scale_factor=factor, mode="linear", align_corners=True)
        return columns[0].T.contiguous()
