"""The voxel grid all files of a subject share, and smooth random fields on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gss_train.common import Triple

FloatVolume = NDArray[np.float32]
BoolVolume = NDArray[np.bool_]

# The brain is drawn to fit this box in mm: the 155 mm are those of the BraTS grid, whose margins in x and y
# are wider than a coarse phantom can afford.
FIELD_OF_VIEW = (192.0, 216.0, 155.0)


@dataclass(frozen=True)
class Grid:
    """An isotropic grid in BraTS orientation: x to the left, y to the back, z to the top of the head.

    Attributes:
        size: voxels along x, y and z.
        spacing: edge of a voxel in mm.
    """

    size: Triple
    spacing: float

    @classmethod
    def for_brain(cls, size: Triple) -> Grid:
        """Grid of `size` voxels with the finest spacing at which a head fits: 1 mm for 240 x 240 x 155."""
        spacing = max(extent / voxels for extent, voxels in zip(FIELD_OF_VIEW, size, strict=True))
        return cls(size, round(spacing, 3))

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in ml."""
        return self.spacing**3 / 1000

    def coordinates(self) -> FloatVolume:
        """Position of every voxel in mm from the centre of the grid, float32 (3, x, y, z), along the grid's axes."""
        axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * self.spacing for n in self.size]
        return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)

    def offset_from(self, centre: Triple) -> FloatVolume:
        """Position of every voxel in mm from voxel `centre`, float32 (3, x, y, z)."""
        position = self.coordinates()
        return position - position[(slice(None), *centre)][:, None, None, None]

    def smooth_noise(self, rng: np.random.Generator, wavelength: float) -> FloatVolume:
        """Random field, zero mean and unit variance, whose blobs are about `wavelength` mm apart; float32 (x, y, z).

        A cubic B-spline over a lattice of normal deviates; lattice nodes are half a wavelength apart.
        """
        splines = [_Spline.over(n, wavelength / 2 / self.spacing, rng.uniform()) for n in self.size]
        field = rng.standard_normal([spline.nodes for spline in splines], dtype=np.float32)
        # The first axis last: it has the longest contiguous runs, and by then the field is large.
        for axis in (2, 1, 0):
            field = splines[axis].along(field, axis)
        # The expected variance, not the sample's: a field of few blobs would otherwise lose its randomness.
        variance = np.prod([np.mean(np.sum(spline.weights**2, axis=1)) for spline in splines])
        return field / np.float32(np.sqrt(variance))


def bounding_box(mask: BoolVolume, margin: int) -> tuple[slice, slice, slice]:
    """The smallest box around a mask that is not empty, grown by `margin` voxels where the volume allows."""
    x, y, z = (np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    sides = [slice(max(int(a[0]) - margin, 0), int(a[-1]) + margin + 1) for a in (x, y, z)]
    return sides[0], sides[1], sides[2]


@dataclass(frozen=True)
class _Spline:
    """Cubic B-spline along one axis.

    Attributes:
        first: for each voxel the first of the four lattice nodes that matter to it, (voxels,).
        weights: the weights of the four, float32 (voxels, 4).
    """

    first: NDArray[np.int64]
    weights: FloatVolume

    @classmethod
    def over(cls, voxels: int, step: float, phase: float) -> _Spline:
        """Spline over `voxels` voxels with `step` voxels between nodes."""
        position = np.arange(voxels) / step + phase
        first = np.floor(position).astype(np.int64)
        t = position - first
        weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
        return cls(first, weights.astype(np.float32))

    @property
    def nodes(self) -> int:
        """Number of lattice nodes."""
        return int(self.first[-1]) + 4

    def along(self, field: FloatVolume, axis: int) -> FloatVolume:
        """Replace the nodes of `axis` by voxels."""
        shape = [1, 1, 1]
        shape[axis] = -1
        total = field.take(self.first, axis=axis)
        total *= self.weights[:, 0].reshape(shape)
        for k in range(1, 4):
            term = field.take(self.first + k, axis=axis)
            term *= self.weights[:, k].reshape(shape)
            total += term
        return total
