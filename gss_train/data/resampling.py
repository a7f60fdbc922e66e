"""Brings scans, labels and probabilities from one voxel grid to another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gss_train.common import Triple, UserError, to_triple
from gss_train.data.datasets import LABEL, MODALITIES
from gss_train.data.grids import Affine, Box, Grid, Spacing, bounding_box, is_same_spacing, millimetres
from gss_train.data.volumes import Volume

_MOST_VOXELS = 512**3
# Fewer are no brain at any voxel size that a network is trained on.
_LEAST_BRAIN_VOXELS = 1000
# Of a voxel; what is left of rounding.
_HARDLY_ANY = 1e-3

Floats = npt.NDArray[np.float32]


class ResamplingError(UserError):
    """Scans cannot be brought to the voxel size that is wanted; the message says what they are."""


def network_grid(volumes: Mapping[str, Volume], spacing: Spacing | None) -> Grid:
    """The grid that a subject's scans are brought to: that of the first of `MODALITIES`, with voxels of `spacing`.

    Args:
        volumes: by modality, a scan at least; each from `reorient`.
        spacing: voxel size in millimetres; None: that of the first scan.

    Raises:
        ResamplingError: it would have more than 512^3 voxels, or fewer than any brain.
    """
    first = next(volumes[modality].grid for modality in MODALITIES if modality in volumes)
    if spacing is None or is_same_spacing(first.spacing, spacing):
        return first
    grid = first.with_spacing(spacing)
    if math.prod(grid.shape) > _MOST_VOXELS:
        raise _error(first, grid, f"would have {grid.shape}, more than 512^3,")
    if math.prod(grid.shape) < _LEAST_BRAIN_VOXELS:
        raise _error(first, grid, f"would have {grid.shape}, fewer than any brain,")
    return grid


def place(volumes: Mapping[str, Volume], grid: Grid) -> dict[str, Volume]:
    """Brings all volumes of a subject to one grid, wherever their affines say that they lie.

    Args:
        volumes: by modality and `LABEL`; scans are 0 outside the brain.
        grid: of all; volumes that have it already are taken as they are.

    Returns:
        By the same names: scans as of `resample_scan`, labels as of `resample_label`.

    Raises:
        ResamplingError: a scan would have hardly any brain, or a file's voxels are far too small.
    """
    placed = {}
    for role, volume in volumes.items():
        if volume.grid.is_same(grid):
            placed[role] = volume
            continue
        resample = resample_label if role == LABEL else resample_scan
        placed[role] = Volume(resample(volume.voxels, volume.grid, grid), grid.affine)
    return placed


def resample_scan(voxels: npt.NDArray[Any], grid: Grid, wanted: Grid) -> Floats:
    """Brings a scan to another grid: every voxel gets the mean over the brain in it.

    The background stays 0, and brain voxels at its border do not darken; voxels that are less than half brain are
    background. How much of what is in a voxel, see `_means`.

    Args:
        voxels: [D,H,W], 0 outside the brain.
        grid: that they are on.
        wanted: that they are brought to.

    Returns:
        [D',H',W'] float32.

    Raises:
        ResamplingError: there would be hardly any brain.
    """
    found = np.zeros(wanted.shape, np.float32)
    brain = voxels != 0
    region = _region(grid, bounding_box(brain), wanted)
    if region is not None:
        total, share = (_means(part.astype(np.float32), grid, wanted, region) for part in (voxels, brain))
        np.divide(total, share, out=found[region], where=share > 0.5 - _HARDLY_ANY)
    count = int(np.count_nonzero(found))
    if count < _LEAST_BRAIN_VOXELS:
        raise _error(grid, wanted, f"would have {count} voxels of brain")
    return found


def resample_label(label: npt.NDArray[Any], grid: Grid, wanted: Grid) -> npt.NDArray[Any]:
    """Brings a label to another grid: every voxel gets the value that most of it has, of equal shares the lowest.

    How much of what is in a voxel, see `_means`.

    Args:
        label: [D,H,W] of a few different values; what lies outside is 0.
        grid: that it is on.
        wanted: that it is brought to.

    Returns:
        [D',H',W'] of the type of `label`.
    """
    majority = np.zeros(wanted.shape, label.dtype)
    box = bounding_box(label != 0)
    region = _region(grid, box, wanted)
    if box is None or region is None:
        return majority
    values = [value for value in np.unique(label[box]) if value != 0]
    shares = np.stack([_means((label == value).astype(np.float32), grid, wanted, region) for value in values])
    numbers = np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares]).argmax(axis=0)
    majority[region] = np.array([0, *values], label.dtype)[numbers]
    return majority


def resample_values(values: Floats, grid: Grid, wanted: Grid, outside: float) -> Floats:
    """Brings values [d,h,w] to another grid, by linear interpolation; beyond them is `outside`."""
    return _sample(values, wanted.indices_in(grid), wanted.shape, outside)


def most_probable(probabilities: Floats, grid: Grid, wanted: Grid) -> npt.NDArray[np.uint8]:
    """The most probable category of each voxel of another grid, the probabilities interpolated linearly.

    Args:
        probabilities: [C,d,h,w]; beyond them all is background, category 0.
        grid: that they are on.
        wanted: whose categories are asked for.

    Returns:
        [D,H,W] uint8.
    """
    categories = np.zeros(wanted.shape, np.uint8)
    # Where the background is most probable all around, it is so between as well.
    region = _region(grid, bounding_box(probabilities.argmax(axis=0) != 0), wanted)
    if region is None:
        return categories
    part = wanted.part(region)
    indices = part.indices_in(grid)
    highest = _sample(probabilities[0], indices, part.shape, 1.0)
    inside = categories[region]
    for category, probability in enumerate(probabilities[1:], start=1):
        values = _sample(probability, indices, part.shape)
        higher = values > highest
        inside[higher] = category
        highest[higher] = values[higher]
    return categories


def _region(grid: Grid, box: Box | None, wanted: Grid) -> Box | None:
    """Where a box of one grid, and a voxel more on each side, lies in another; None if that is nowhere."""
    if box is None:
        return None
    ends = [(axis.start - 1, axis.stop) for axis in box]
    corners = np.array([(*corner, 1) for corner in itertools.product(*ends)]) @ grid.indices_in(wanted).T
    starts = np.clip(np.floor(corners[:, :3].min(axis=0)), 0, wanted.shape).astype(int).tolist()
    stops = np.clip(np.ceil(corners[:, :3].max(axis=0)) + 1, 0, wanted.shape).astype(int).tolist()
    if any(start >= stop for start, stop in zip(starts, stops, strict=True)):
        return None
    x, y, z = (slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    return x, y, z


def _means(values: Floats, grid: Grid, wanted: Grid, region: Box) -> Floats:
    """The mean over each voxel of a region of another grid.

    It is looked at in places that are, along each axis, no farther apart than the voxels of `grid`, between which is
    interpolated linearly: where voxels grow nothing is left out, so that nothing aliases.

    Raises:
        ResamplingError: these would be more than 512^3 places.
    """
    part = wanted.part(region)
    # How many voxels of `grid` one covers, along its own axes.
    covered = np.linalg.norm(part.indices_in(grid)[:3, :3], axis=0)
    a, b, c = places = to_triple(np.maximum(1, np.ceil(covered - _HARDLY_ANY)).astype(int).tolist())
    fine = part.divided(places)
    if math.prod(fine.shape) > _MOST_VOXELS:
        raise _error(grid, wanted, "would be looked at in more than 512^3 places")
    x, y, z = part.shape
    means: Floats = _sample(values, fine.indices_in(grid), fine.shape).reshape(x, a, y, b, z, c).mean(axis=(1, 3, 5))
    return means


def _sample(voxels: Floats, indices: Affine, shape: Triple, outside: float = 0.0) -> Floats:
    """Interpolates linearly where the voxels of another grid lie: [D',H',W'], `outside` beyond the volume.

    Args:
        voxels: [D,H,W].
        indices: [4,4], from indices of the other grid to those of `voxels`.
        shape: of the other grid.
        outside: what is beyond.
    """
    if np.array_equal(indices[:3, :3], np.eye(3)) and not (indices[:3, 3] % 1).any():
        return _shifted(voxels, indices[:3, 3].astype(int).tolist(), shape, outside)
    # What is prepared can be used without SimpleITK. Any: it leaves its methods without types.
    import SimpleITK  # noqa: PLC0415

    itk: Any = SimpleITK
    # It counts the axes of an array backwards.
    transform = itk.AffineTransform(3)
    transform.SetMatrix(indices[2::-1, 2::-1].ravel().tolist())
    transform.SetTranslation(indices[2::-1, 3].tolist())
    image, places = itk.GetImageFromArray(voxels), ((0.0,) * 3, (1.0,) * 3, np.eye(3).ravel().tolist())
    resampled = itk.Resample(image, shape[::-1], transform, itk.sitkLinear, *places, outside)
    array: Floats = itk.GetArrayFromImage(resampled)
    return array


def _shifted(voxels: Floats, shift: list[int], shape: Triple, outside: float) -> Floats:
    """A box of a volume, the first voxel of which is `shift`, as it is."""
    shifted = np.full(shape, outside, np.float32)
    ends = zip(shift, voxels.shape, shape, strict=True)
    spans = [(max(0, -start), min(length, total - start)) for start, total, length in ends]
    if all(start < stop for start, stop in spans):
        there = tuple(slice(start, stop) for start, stop in spans)
        here = tuple(slice(start + by, stop + by) for (start, stop), by in zip(spans, shift, strict=True))
        shifted[there] = voxels[here]
    return shifted


def _error(grid: Grid, wanted: Grid, problem: str) -> ResamplingError:
    return ResamplingError(
        f"scans of {grid.shape} voxels of {millimetres(grid.spacing)} {problem} at {millimetres(wanted.spacing)}: "
        "does their header give the right voxel size?"
    )
