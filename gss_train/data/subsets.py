"""The 15 subsets of the four modalities that a patient may come with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from gss_train.data.datasets import MODALITIES

SubsetDraw = Literal["subset", "modality", "count"]

# The order of the papers' tables.
_MEMBERS = (
    ("T2",),
    ("T1ce",),
    ("T1",),
    ("FLAIR",),
    ("T1ce", "T2"),
    ("T1ce", "T1"),
    ("FLAIR", "T1"),
    ("T1", "T2"),
    ("FLAIR", "T2"),
    ("FLAIR", "T1ce"),
    ("FLAIR", "T1ce", "T1"),
    ("FLAIR", "T1", "T2"),
    ("FLAIR", "T1ce", "T2"),
    ("T1ce", "T1", "T2"),
    ("FLAIR", "T1ce", "T1", "T2"),
)

MODALITY_SUBSETS: tuple[tuple[bool, ...], ...] = tuple(
    tuple(modality in members for modality in MODALITIES) for members in _MEMBERS
)
"""Every non-empty subset once, in the order of the papers' tables: 15 rows of one flag per name in `MODALITIES`."""


def subset_name(subset: Sequence[bool] | Tensor) -> str:
    """Names a subset, such as "FLAIR+T1ce".

    Args:
        subset: one flag per name in `MODALITIES`.

    Raises:
        ValueError: not four flags, or none of them set.
    """
    flags = [bool(flag) for flag in subset]
    if len(flags) != len(MODALITIES) or not any(flags):
        raise ValueError(f"subset: got {flags}, need {len(MODALITIES)} flags of which one is set at least")
    return "+".join(modality for modality, flag in zip(MODALITIES, flags, strict=True) if flag)


def draw_subsets(available: Tensor, generator: torch.Generator, draw: SubsetDraw = "subset") -> Tensor:
    """Draws one non-empty subset per sample, within the sample's modalities.

    Args:
        available: [B,4] bool, the modalities that each sample has.
        generator: on the CPU, so that results repeat on any device.
        draw: `subset`: all subsets equally likely (RFNet, mmFormer); `modality`: each modality with probability 1/2,
            and any one of them, equally likely, where that leaves none (RobustSeg); `count`: each number of modalities
            equally likely, then each subset of so many (U-HVED).

    Returns:
        [B,4] bool on the device of `available`.

    Raises:
        ValueError: `available` has another shape or dtype, or a sample has no modality.
    """
    if available.dim() != 2 or available.shape[1] != len(MODALITIES) or available.dtype != torch.bool:
        found = f"{available.dtype} of shape {tuple(available.shape)}"
        raise ValueError(f"available: got {found}, need torch.bool of shape (B, {len(MODALITIES)})")
    present = available.cpu()
    if not present.any(dim=1).all():
        empty = int((~present.any(dim=1)).nonzero()[0])
        raise ValueError(f"available: sample {empty} has no modality, need at least one")
    subsets = torch.tensor(MODALITY_SUBSETS)
    possible = ~(subsets & ~present[:, None, :]).any(dim=2)
    drawn = torch.multinomial(_WEIGHTS[draw](possible, subsets.sum(dim=1)), 1, generator=generator).squeeze(1)
    return subsets[drawn].to(available.device)


def _alike(possible: Tensor, _sizes: Tensor) -> Tensor:
    return possible.float()


def _by_modality(possible: Tensor, sizes: Tensor) -> Tensor:
    """Every subset is one outcome of the coins; the one where all fall the other way goes to the single modalities."""
    single = possible & (sizes == 1)
    return possible + single / single.sum(dim=1, keepdim=True)


def _by_count(possible: Tensor, sizes: Tensor) -> Tensor:
    alike = torch.stack([(possible & (sizes == size)).sum(dim=1) for size in sizes.tolist()], dim=1)
    return possible / alike.clamp(min=1)


_WEIGHTS = {"subset": _alike, "modality": _by_modality, "count": _by_count}
