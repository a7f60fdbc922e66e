"""What augmentation varies and how far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

# Voxels between the control points of an elastic deformation: structures of this size move against each other.
CONTROL_SPACING = 20
# Cubic B-splines whose control points move by up to 0.4 of their spacing cannot fold (Choi and Lee, Injectivity
# conditions of 2D and 3D uniform cubic B-spline functions, 2000).
MAX_ELASTIC = 0.4 * CONTROL_SPACING


@dataclass(frozen=True)
class AugmentationSettings:
    """What is varied and how far; the defaults are those of RFNet's published training.

    Attributes:
        rotation_degrees: r; the angle is a whole number of degrees from -r to r - 1. 0 leaves rotation out.
        interpolation: of the rotated image; the label always takes its nearest voxel.
        fill: image value of voxels that were outside before the rotation; their label is 0.
        scale: s; intensities are multiplied by a number from 1 - s to 1 + s.
        shift: t; after that, a number from -t to t is added.
        intensity_per_slice: draw scale and shift for each modality and slice of the first axis, as published, rather
            than for each modality.
        flip: turn each axis around with probability 1/2.
        scaling: s; what is shown is enlarged about the crop's centre by a factor from 1 - s to 1 + s.
        scaling_per_axis: draw that factor for each axis, as U-HVED was trained, not for all three.
        elastic: e; the control points of a smooth deformation, 20 voxels apart, move by -e to e voxels along each
            axis. Not published.
    """

    rotation_degrees: int = 10
    interpolation: Literal["nearest", "linear"] = "nearest"
    fill: float = -1.0
    scale: float = 0.1
    shift: float = 0.1
    intensity_per_slice: bool = True
    flip: bool = True
    scaling: float = 0.0
    scaling_per_axis: bool = False
    elastic: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rotation_degrees < 90:
            raise ValueError(f"rotation_degrees: got {self.rotation_degrees}, need 0 to 89")
        if self.interpolation not in {"nearest", "linear"}:
            raise ValueError(f"interpolation: got {self.interpolation!r}, need 'nearest' or 'linear'")
        for name, value in (("scale", self.scale), ("scaling", self.scaling)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}: got {value}, need a number from 0 to less than 1")
        if not 0 <= self.shift < math.inf:
            raise ValueError(f"shift: got {self.shift}, need 0 or more")
        if not 0 <= self.elastic <= MAX_ELASTIC:
            raise ValueError(f"elastic: got {self.elastic}, need 0 to {MAX_ELASTIC:g} voxels; beyond, tissue may fold")


PUBLISHED_AUGMENTATION = AugmentationSettings()
