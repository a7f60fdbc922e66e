"""Logits and labels like those of training."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_logits(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Logits `[B, M, C, *spatial]` that often agree and are often confident: every route of the vote is taken.

    No more than one further tensor of their size is needed meanwhile.
    """
    generator = torch.Generator(device).manual_seed(0)
    samples, _, *rest = shape
    logits = torch.randn(shape, dtype=dtype, generator=generator, device=device).mul_(2)
    return logits.add_(torch.randn(samples, 1, *rest, dtype=dtype, generator=generator, device=device), alpha=4)


def draw_labels(shape: tuple[int, ...], num_categories: int, device: torch.device) -> Tensor:
    """Labels `[B, *spatial]`, uint8."""
    generator = torch.Generator(device).manual_seed(1)
    return torch.randint(num_categories, shape, dtype=torch.uint8, generator=generator, device=device)
