"""Where the windows lie that slide over a volume, and how much each of their voxels counts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gss_train.common import Triple
from gss_train.data import Box

Weighting = Literal["uniform", "gaussian"]

# Of the crop's length along each axis; nnU-Net's choice.
_GAUSSIAN_SPREAD = 1 / 8


@dataclass(frozen=True)
class SlidingWindow:
    """How a volume is segmented that is larger than what a network sees at once; windows overlap by half.

    Attributes:
        crop_size: voxels of a window.
        weighting: of a window's voxels where windows overlap: "uniform" as published, or "gaussian", which trusts the
            middle more (standard deviation of an eighth of the window, as nnU-Net has it).
        flips: average over the eight ways to flip the axes; not published, takes eight times as long.
    """

    crop_size: Triple
    weighting: Weighting = "uniform"
    flips: bool = False

    def weights(self) -> Tensor:
        """How much each voxel of a window counts, float32 `[d, h, w]`, above 0 everywhere."""
        weights = torch.ones(())
        for crop in self.crop_size:
            along = torch.ones(crop)
            if self.weighting == "gaussian":
                distance = torch.arange(crop) - (crop - 1) / 2
                along = torch.exp(-0.5 * (distance / (crop * _GAUSSIAN_SPREAD)) ** 2)
            weights = weights[..., None] * along
        return weights

    @property
    def flipped_axes(self) -> tuple[tuple[int, ...], ...]:
        """Spatial axes, from -3 to -1, of each pass over a window."""
        if not self.flips:
            return ((),)
        return tuple(axes for count in range(4) for axes in itertools.combinations((-3, -2, -1), count))

    def rows(self, shape: Sequence[int]) -> Iterator[tuple[int, list[Box]]]:
        """The boxes of all windows of a volume, by the plane of the first axis at which they begin, in its order.

        Args:
            shape: of the volume, three lengths.

        Raises:
            ValueError: an axis is shorter than the window.
        """
        first, *rest = (window_starts(length, crop) for length, crop in zip(shape, self.crop_size, strict=True))
        for start in first:
            yield start, [self._box((start, *corner)) for corner in itertools.product(*rest)]

    def _box(self, corner: Sequence[int]) -> Box:
        x, y, z = (slice(start, start + crop) for start, crop in zip(corner, self.crop_size, strict=True))
        return x, y, z


def window_starts(length: int, crop: int) -> list[int]:
    """Where windows start on one axis: every half crop, and one that ends with the volume."""
    if length < crop:
        raise ValueError(f"image: got an axis of {length} voxels, need at least the crop's {crop}")
    step = max(1, crop // 2)
    steps = math.ceil((length - crop) / step)
    return [step * number for number in range(steps)] + [length - crop]
