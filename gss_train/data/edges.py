"""Where the edges in a scan or an annotation run, and how well those of two files agree.

Whatever the contrasts of two scans, edges in them run along the same surfaces of one head: normalised gradient fields
(E. Haber and J. Modersitzki, "Intensity gradient based registration and fusion of multi-modal images", MICCAI 2006),
here of means over a few millimetres, coarser than noise and most of what is seen in one contrast only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gss_train.data.grids import Spacing

_BLOCK_MM = 4.0
# Larger voxels blur the edges.
_LARGEST_BLOCK_MM = 6.0
_LEAST_BLOCKS = 5
# Of a block's voxels.
_LEAST_BRAIN = 0.5

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Edges:
    """The edges of one file.

    Attributes:
        directions: [3,d,h,w] of the intensities' gradient: of length 1 or, where it is weak, less; 0 outside the brain.
        strength: [d,h,w], squares of their lengths.
    """

    directions: Floats
    strength: Floats

    @property
    def count(self) -> int:
        """Blocks with an edge."""
        return int(np.count_nonzero(self.strength))

    def mirrored(self) -> Edges:
        """The edges of the file flipped along the first axis."""
        signs = np.array([-1, 1, 1], np.float32).reshape(3, 1, 1, 1)
        return Edges(self.directions[:, ::-1] * signs, self.strength[::-1])

    def moved(self, axis: int, blocks: int) -> Edges:
        """What remains in the grid of the others, moved against it, when the file is moved along an axis."""
        start, stop = max(-blocks, 0), self.strength.shape[axis] - max(blocks, 0)
        kept = (slice(None),) * axis + (slice(start, stop),)
        return Edges(self.directions[(slice(None), *kept)], self.strength[kept])


def edges_of_scan(voxels: npt.NDArray[Any], spacing: Spacing) -> Edges:
    """Finds the edges inside the brain.

    Args:
        voxels: [D,H,W], 0 outside the brain.
        spacing: voxel size in millimetres.

    Returns:
        Them; none where the voxels are too large, or the volume too small.
    """
    return _edges(voxels, spacing, _block_means(voxels != 0, spacing) >= _LEAST_BRAIN)


def edges_of_label(tumour: Bools, spacing: Spacing) -> Edges:
    """Finds the border of a tumour; see `edges_of_scan`."""
    return _edges(tumour, spacing, None)


def agreement(edges: Edges, others: Sequence[Edges]) -> float:
    """Mean square cosine between the directions in a file and in others: 1 where all are parallel, 1/3 by chance.

    It is 1/3, too, where there is nothing to compare.
    """
    total, weight = 0.0, 0.0
    for other in others:
        products = edges.directions[0] * other.directions[0]
        for axis in (1, 2):
            products += edges.directions[axis] * other.directions[axis]
        total += float(np.square(products).sum())
        weight += float((edges.strength * other.strength).sum())
    return total / weight if weight else 1 / 3


def overlap(first: Edges, second: Edges) -> float:
    """Share of the blocks with an edge, in the file that has fewer, that have one in the other, too."""
    common = np.count_nonzero((first.strength > 0) & (second.strength > 0))
    return int(common) / max(1, min(first.count, second.count))


def _edges(voxels: npt.NDArray[Any], spacing: Spacing, brain: Bools | None) -> Edges:
    means = _block_means(voxels, spacing)
    sizes = [length * step for length, step in zip(spacing, _steps(spacing), strict=True)]
    if min(means.shape) < _LEAST_BLOCKS or max(sizes) > _LARGEST_BLOCK_MM:
        return Edges(np.zeros((3, *means.shape), np.float32), np.zeros(means.shape, np.float32))
    gradient: Floats = np.stack(list(np.gradient(means, *sizes)))
    if brain is not None:
        gradient *= _interior(brain)
    squares = np.square(gradient).sum(0)
    typical = squares.sum() / max(1, np.count_nonzero(squares)) or np.float32(1)
    return Edges(gradient / np.sqrt(squares + typical), squares / (squares + typical))


def _interior(brain: Bools) -> Bools:
    """The blocks whose six neighbours are in the brain, too."""
    inner = np.zeros_like(brain)
    middle = slice(1, -1)
    inner[middle, middle, middle] = brain[middle, middle, middle]
    for axis in range(3):
        for neighbour in (slice(None, -2), slice(2, None)):
            inner[middle, middle, middle] &= brain[tuple(neighbour if a == axis else middle for a in range(3))]
    return inner


def _block_means(voxels: npt.NDArray[Any], spacing: Spacing) -> Floats:
    """Means over blocks, of two voxels of each along each axis: the others would say little more.

    The blocks lie the same way from both ends, so that those of flipped voxels are the flipped blocks.
    """
    views = [voxels]
    for axis, step in enumerate(_steps(spacing)):
        length = voxels.shape[axis]
        start, stop = length % step // 2, length - (length % step + 1) // 2
        offsets = sorted({step // 4, step - 1 - step // 4})
        along = (slice(None),) * axis
        views = [view[(*along, slice(start + offset, stop, step))] for view in views for offset in offsets]
    total: Floats = np.sum(views, axis=0, dtype=np.float32)
    return total / np.float32(len(views))


def _steps(spacing: Spacing) -> tuple[int, ...]:
    """Voxels of a block, along each axis."""
    return tuple(max(1, round(_BLOCK_MM / length)) for length in spacing)
