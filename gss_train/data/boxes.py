"""Boxes of a volume: grown within it, and read with background around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gss_train.common import Triple
from gss_train.data.datasets import MODALITIES

Pairs = tuple[tuple[int, int], ...]
"""Two numbers per axis: first voxel and one past the last of a box, or voxels before and after it."""


def grow(start: int, stop: int, least: int, length: int) -> tuple[int, int]:
    """Grows start:stop on both sides to `least` voxels, shifted or cut where 0:length ends."""
    missing = least - (stop - start)
    if missing <= 0:
        return start, stop
    start = max(0, min(start - missing // 2, length - least))
    return start, min(start + least, length)


def grow_as_released(start: int, stop: int, least: int, length: int) -> tuple[int, int]:
    """Likewise, from `start` to the last plane, which is left out; cut where the volume ends."""
    end = stop - 1
    missing = least - (end - start)
    if missing > 0:
        start, end = start - missing // 2, end + missing // 2 + 1
    shift = max(0, -start)
    return start + shift, min(end + shift, length)


def padding_to(size: Triple, box: Pairs, whole: Triple, grown_size: Triple) -> Pairs:
    """How much background goes around a brain's box such that a crop or window fits in.

    Where that is larger than what the box was grown to already, the box grows on within the whole volume;
    what is then still missing lies half before it and half after.

    Args:
        size: voxels per axis that are needed.
        box: first voxel and one past the last, per axis.
        whole: voxels per axis of the volume that the box is of.
        grown_size: voxels per axis that it was grown to, where the volume has as many.

    Returns:
        Voxels before and after the box, per axis.
    """
    padding = []
    for (start, stop), least, length, grown in zip(box, size, whole, grown_size, strict=True):
        first, last = grow(start, stop, least, length) if least > grown else (start, stop)
        missing = max(0, least - (last - first))
        padding.append((start - first + missing // 2, last - stop + missing - missing // 2))
    return tuple(padding)


def read_box(
    voxels: npt.NDArray[Any], start: Sequence[int], size: Sequence[int], background: Sequence[float]
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
    """Copies a box of a volume that is surrounded by background without end.

    Args:
        voxels: [D,H,W] of `gss_train.data.VOXEL_DTYPE`; nothing is read beside the box.
        start: first voxel per axis, which may lie before the volume.
        size: voxels per axis, 1 or more.
        background: image value outside the volume, per modality; the label there is 0.

    Returns:
        image [4,d,h,w] float16 and label [d,h,w] uint8, both contiguous.
    """
    inside, target = [], []
    for first, length, total in zip(start, size, voxels.shape, strict=True):
        low, high = (min(max(end, 0), total) for end in (first, first + length))
        inside.append(slice(low, high))
        target.append(slice(low - first, high - first))
    part = voxels[tuple(inside)]
    scans = np.moveaxis(part["image"], -1, 0)
    if part.shape == tuple(size):
        return np.array(scans, order="C"), np.array(part["label"], order="C")
    image, label = np.empty((len(MODALITIES), *size), np.float16), np.zeros(size, np.uint8)
    image[:] = np.array(background, np.float16).reshape(-1, 1, 1, 1)
    image[:, *target] = scans
    label[tuple(target)] = part["label"]
    return image, label
