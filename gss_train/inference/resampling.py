"""Brings scans to the voxel size that networks were trained on, and probabilities back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK

from gss_train.common import Triple, UserError, to_triple

_TOLERANCE_MM = 0.01
_MOST_VOXELS = 512**3
# Fewer are no brain at any voxel size that a network is trained on.
_LEAST_BRAIN_VOXELS = 1000

# Any: SimpleITK leaves its methods without types.
_ITK: Any = SimpleITK

Spacing = tuple[float, float, float]
Floats = npt.NDArray[np.float32]


def is_resampling_needed(spacing: Spacing, wanted: Spacing) -> bool:
    """Whether voxel sizes in millimetres differ by more than headers round them."""
    return float(np.abs(np.subtract(spacing, wanted)).max()) > _TOLERANCE_MM


def millimetres(spacing: Spacing) -> str:
    """Voxel sizes for people, such as "1 x 1 x 2.5 mm"."""
    return " x ".join(f"{length:.4g}" for length in spacing) + " mm"


@dataclass(frozen=True)
class Resampling:
    """Two grids with the same directions of axes and a common centre.

    Places are counted from the middle of the raw grid's first voxel, in millimetres along its axes: results then do not
    depend on where and how a patient lay.

    Attributes:
        raw_shape: voxels per axis of the raw grid.
        raw_spacing: its voxel size in millimetres.
        spacing: voxel size of the other grid.
    """

    raw_shape: Triple
    raw_spacing: Spacing
    spacing: Spacing

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        return is_resampling_needed(self.raw_spacing, self.spacing)

    @property
    def shape(self) -> Triple:
        """Voxels per axis of the other grid."""
        extents = zip(self.raw_shape, self.raw_spacing, self.spacing, strict=True)
        return to_triple([max(1, round(length * raw / own)) for length, raw, own in extents])

    @property
    def _first(self) -> Spacing:
        """Where the other grid's first voxel lies."""
        raw = np.subtract(self.raw_shape, 1) * self.raw_spacing
        own = np.subtract(self.shape, 1) * self.spacing
        x, y, z = ((raw - own) / 2).tolist()
        return x, y, z

    def scan(self, voxels: npt.NDArray[Any]) -> Floats:
        """Brings a scan to the other grid, by linear interpolation.

        The background stays 0, and brain voxels at its border do not darken: only brain is averaged over. Where voxels
        grow, the scan is smoothed before.

        Args:
            voxels: [D,H,W] on the raw grid, 0 outside the brain.

        Returns:
            [D',H',W'] float32.

        Raises:
            UserError: the other grid would have more than 512^3 voxels, or hardly any brain.
        """
        if math.prod(self.shape) > _MOST_VOXELS:
            raise self._error(f"would have {self.shape}, more than 512^3,")
        total = self._to_other(self._smoothed(voxels))
        share = self._to_other(self._smoothed(voxels != 0))
        found = np.divide(total, share, out=np.zeros_like(total), where=share >= 0.5)
        count = int(np.count_nonzero(found))
        if count < _LEAST_BRAIN_VOXELS:
            raise self._error(f"would have {count} voxels of brain")
        return found

    def back(self, values: Floats, corner: tuple[int, ...], outside: float) -> Floats:
        """Brings a part of the other grid back to the raw one, by linear interpolation.

        Args:
            values: [d,h,w].
            corner: their first voxel on the other grid.
            outside: what holds elsewhere.

        Returns:
            On the raw grid, float32.
        """
        first = tuple(np.add(self._first, np.multiply(corner, self.spacing)).tolist())
        image = _image(values, self.spacing, first)
        return _resampled(image, self.raw_shape, self.raw_spacing, (0.0, 0.0, 0.0), outside)

    def _error(self, problem: str) -> UserError:
        return UserError(
            f"scans of {self.raw_shape} voxels of {millimetres(self.raw_spacing)} {problem} at "
            f"{millimetres(self.spacing)}: does their header give the right voxel size?"
        )

    def _smoothed(self, voxels: npt.NDArray[Any]) -> Any:
        image = _image(voxels.astype(np.float32), self.raw_spacing, (0.0, 0.0, 0.0))
        factors = np.divide(self.spacing, self.raw_spacing)
        sigma = np.maximum(0, (factors - 1) / 2) * self.raw_spacing
        if not sigma.any():
            return image
        return _ITK.DiscreteGaussian(image, variance=(sigma[::-1] ** 2).tolist(), maximumKernelWidth=64)

    def _to_other(self, image: Any) -> Floats:
        return _resampled(image, self.shape, self.spacing, self._first, 0.0)


def _image(voxels: Floats, spacing: Spacing, first: tuple[float, ...]) -> Any:
    # SimpleITK counts the axes of an array backwards.
    image = _ITK.GetImageFromArray(voxels)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin(first[::-1])
    return image


def _resampled(image: Any, shape: Triple, spacing: Spacing, first: tuple[float, ...], outside: float) -> Floats:
    directions = np.eye(3).ravel().tolist()
    resampled = _ITK.Resample(
        image, shape[::-1], _ITK.Transform(), _ITK.sitkLinear, first[::-1], spacing[::-1], directions, outside
    )
    array: Floats = _ITK.GetArrayFromImage(resampled)
    return array
