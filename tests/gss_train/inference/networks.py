"""Networks whose predictions can be told without them; windows are 4 voxels along the last axis."""

from __future__ import annotations

import torch
from torch import Tensor


class BrightestModality:
    """Predicts, voxel by voxel, which of the fused modalities is largest; counts its calls."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, x: Tensor, available: Tensor | None = None) -> tuple[Tensor, ...]:
        assert x.shape[2:] == (4, 4, 4)
        self.encoded += 1
        return (x,)

    def fuse(self, features: tuple[Tensor, ...], fused_modalities: Tensor) -> Tensor:
        (x,) = features
        return torch.where(fused_modalities[:, :, None, None, None], x, -50.0)


class PositionInWindow(BrightestModality):
    """Gives category 1 a probability that grows along the last axis of the window, in a way easy to average by hand."""

    def encode(self, x: Tensor, available: Tensor | None = None) -> tuple[Tensor, ...]:
        return (x,)

    def fuse(self, features: tuple[Tensor, ...], fused_modalities: Tensor) -> Tensor:
        (x,) = features
        one = torch.tensor([0.1, 0.3, 0.6, 0.95]).expand(1, *x.shape[2:])
        return torch.stack([1 - one, one], dim=1).log()
