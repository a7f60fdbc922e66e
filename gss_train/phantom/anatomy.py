"""Healthy anatomy: the MNI152 tissue maps, bent into a different head for every subject."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gss_train.common import Triple
from gss_train.phantom.grid import BoolVolume, FloatVolume, Grid, bounding_box

# The template is larger than most brains; this linear factor brings its 1.9 l to about 1.45 l.
MEAN_SCALE = 0.925
# Share by which the CSF of the averaged template is raised to give the sulci of a single head.
SULCUS_GAIN = 1.8
SHARPENING = 1.6


@dataclass(frozen=True)
class Atlas:
    """Tissue maps of the MNI152 template on its own 1 mm grid (x to the right, y to the front, z up), cut to the brain.

    Attributes:
        tissues: share of CSF, grey matter and white matter per voxel, float32 (3, x, y, z); they sum to 1 in the brain
            and to 0 outside.
        centre: middle of the brain's bounding box in voxels.
        tumour_sites: voxels deep in the white matter of the cerebrum, (sites, 3).
    """

    tissues: FloatVolume
    centre: NDArray[np.float32]
    tumour_sites: NDArray[np.int64]


@dataclass(frozen=True)
class Anatomy:
    """A subject's healthy brain on the output grid.

    Attributes:
        tissues: share of CSF, grey matter and white matter, float32 (3, x, y, z); sums to 1 inside `brain`.
        brain: the brain mask, bool (x, y, z).
    """

    tissues: FloatVolume
    brain: BoolVolume

    @property
    def csf(self) -> FloatVolume:
        """Share of cerebrospinal fluid, float32 (x, y, z)."""
        return np.asarray(self.tissues[0])


@dataclass(frozen=True)
class Warp:
    """A map from the output grid to the atlas.

    Attributes:
        source: for every output voxel the position in atlas voxels, float32 (3, x, y, z).
        linear: the map's affine part, atlas voxels per mm on the output grid, float32 (3, 3).
    """

    source: FloatVolume
    linear: NDArray[np.float32]

    def locate(self, atlas_voxel: NDArray[np.int64]) -> Triple:
        """Output voxel that comes closest to an atlas voxel."""
        distance = sum((axis - target) ** 2 for axis, target in zip(self.source, atlas_voxel, strict=True))
        i, j, k = np.unravel_index(int(np.argmin(distance)), self.source.shape[1:])
        return int(i), int(j), int(k)


def load_atlas(spacing: float) -> Atlas:
    """Load the template that ships with nilearn, smoothed so that sampling it every `spacing` mm does not alias."""
    from nilearn import datasets  # noqa: PLC0415 (seconds to import, and only the generating process needs it)

    t1, grey, white = (
        np.asarray(load(resolution=1).dataobj, dtype=np.float32)
        for load in (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    brain = t1 > 0
    box = bounding_box(brain, margin=8)
    corner = np.array([side.start for side in box])
    sites = _tumour_sites(brain, white) - corner
    brain, grey, white = brain[box], grey[box], white[box]
    tissues = np.stack([np.clip(1 - grey - white, 0, 1), grey, white]) * brain
    if spacing > 1:
        tissues = np.stack([ndimage.gaussian_filter(tissue, 0.35 * spacing) for tissue in tissues])
    middle = [(side.start + side.stop - 1) / 2 for side in bounding_box(brain, margin=0)]
    return Atlas(tissues, np.array(middle, dtype=np.float32), sites)


def _tumour_sites(brain: BoolVolume, white_matter: FloatVolume) -> NDArray[np.int64]:
    """Voxels of deep cerebral white matter on every third plane: 22 mm from the surface, 14 mm from the midline."""
    stride = 3
    every = (slice(None, None, stride),) * 3
    depth = ndimage.distance_transform_edt(brain[every], sampling=stride)
    x, _, z = np.ogrid[tuple(slice(0, n, stride) for n in brain.shape)]
    midline, lowest_cerebral_slice = 98, 62
    deep = (white_matter[every] > 0.85) & (depth > 22) & (abs(x - midline) > 14) & (z > lowest_cerebral_slice)
    return np.argwhere(deep) * stride


def random_warp(atlas: Atlas, grid: Grid, rng: np.random.Generator) -> Warp:
    """Draw a head: overall and per-axis scale, rotation, side and smooth local deformation."""
    scale = np.clip(rng.normal(MEAN_SCALE, 0.02), 0.88, 0.96) * (1 + rng.uniform(-1, 1, 3) * (0.03, 0.03, 0.01))
    to_atlas = _rotation(np.radians(rng.uniform(-1, 1, 3) * (4.0, 3.0, 7.0))) / scale
    # Atlas axes point right and front, grid axes left and back; either side may become the subject's left.
    linear = (np.diag([rng.choice([-1.0, 1.0]), -1.0, 1.0]) @ to_atlas).astype(np.float32)
    source = np.einsum("ij,jxyz->ixyz", linear, grid.coordinates())
    for axis in range(3):
        source[axis] += atlas.centre[axis]
        # Lobes vary over centimetres, gyri over millimetres; steeper fields than these would fold.
        source[axis] += 2.4 * grid.smooth_noise(rng, 120) + 1.4 * grid.smooth_noise(rng, 36)
    return Warp(source, linear)


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrix about x, y and z by `angles` in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        first, second = (other for other in range(3) if other != axis)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def push_outwards(warp: Warp, grid: Grid, centre: Triple, radius: float, shift: float) -> Warp:
    """Mass effect: move the tissue around `centre` outwards, by `shift` mm at `radius` mm and less elsewhere.

    `shift` must be below `radius / e`, or tissue would be turned inside out.
    """
    offset = grid.offset_from(centre)
    distance = np.sqrt(np.sum(offset**2, axis=0)) / radius
    displacement = offset * (shift / radius * np.exp(1 - distance))
    # To first order: the local deformation changes little over a displacement of a few mm.
    return Warp(warp.source - np.einsum("ij,jxyz->ixyz", warp.linear, displacement), warp.linear)


def sample(atlas: Atlas, warp: Warp) -> Anatomy:
    """Resample the atlas through a warp."""
    tissues = np.stack([ndimage.map_coordinates(tissue, warp.source, order=1) for tissue in atlas.tissues])
    brain = largest_component(tissues.sum(axis=0) > 0.5)
    # The template is a mean of 152 heads, so its sulci are faint and its borders soft.
    tissues[0] *= SULCUS_GAIN
    tissues = tissues.clip(1e-4, None) ** SHARPENING
    tissues /= tissues.sum(axis=0)
    return Anatomy((tissues * brain).astype(np.float32), brain)


def largest_component(mask: BoolVolume) -> BoolVolume:
    """The largest connected part of a mask."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:])))
