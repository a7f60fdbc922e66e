"""Where the windows lie that slide over a volume."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

Triple = tuple[int, int, int]


def windows(shape: Sequence[int], crop_size: Triple) -> Iterator[tuple[slice, ...]]:
    """Boxes of `crop_size` voxels that cover a volume and overlap by half, those at its far ends by more."""
    starts = (window_starts(length, crop) for length, crop in zip(shape, crop_size, strict=True))
    for corner in itertools.product(*starts):
        yield tuple(slice(start, start + crop) for start, crop in zip(corner, crop_size, strict=True))


def window_starts(length: int, crop: int) -> list[int]:
    """Where windows start on one axis: every half crop, and one that ends with the volume."""
    if length < crop:
        raise ValueError(f"image: got an axis of {length} voxels, need at least the crop's {crop}")
    step = max(1, crop // 2)
    steps = math.ceil((length - crop) / step)
    return [step * number for number in range(steps)] + [length - crop]
