"""Voxel grids: where the voxels of a volume lie, and whether those of one subject's files are the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gss_train.common import Triple, to_triple

Spacing = tuple[float, float, float]
"""Voxel size in millimetres along each axis."""
Box = tuple[slice, slice, slice]
"""First voxel and one past the last along each axis."""
Affine = npt.NDArray[np.float64]

_TOLERANCE_MM = 0.01
# Of an index. Where a patient lies in the world leaves traces in an affine that are smaller.
_DECIMALS = 6
_RESAMPLE = "resample it onto the grid of the other files, the label by nearest neighbour"
_RESAMPLE_OR_SPACE = f"{_RESAMPLE}, or give a --spacing"
_RESAMPLE_OR_RELABEL = f"{_RESAMPLE_OR_SPACE}; if only its header is wrong, copy that of another file"


def to_spacing(lengths: float | Sequence[float]) -> Spacing:
    """Three lengths in millimetres; one stands for three that are equal.

    Raises:
        ValueError: neither one nor three, or one that is not a finite number above 0.
    """
    given = [float(length) for length in (lengths if isinstance(lengths, Sequence) else [lengths])]
    if len(given) not in {1, 3} or not all(0 < length < math.inf for length in given):
        raise ValueError(f"got {lengths}, need one number of millimetres above 0, or three")
    x, y, z = given * 3 if len(given) == 1 else given
    return x, y, z


def millimetres(spacing: Spacing) -> str:
    """Voxel sizes for people, such as "1 x 1 x 2.5 mm"."""
    return " x ".join(f"{length:.4g}" for length in spacing) + " mm"


def size_name(spacing: Spacing) -> str:
    """Voxel sizes in names of files, such as "1x1x2.5mm"."""
    return "x".join(f"{length:g}" for length in spacing) + "mm"


def is_same_spacing(first: Spacing, second: Spacing) -> bool:
    """Whether voxel sizes differ by no more than headers round them."""
    return float(np.abs(np.subtract(first, second)).max()) <= _TOLERANCE_MM


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a volume lie.

    Attributes:
        shape: voxels per axis.
        affine: [4,4], from voxel indices to millimetres right, anterior and superior.
    """

    shape: Triple
    affine: Affine

    @property
    def spacing(self) -> Spacing:
        """Distance in millimetres between neighbouring voxels along each axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    def with_spacing(self, spacing: Spacing) -> Grid:
        """The grid of voxels of another size with the same directions and the same middle; this one if they have it."""
        own = self.spacing
        if is_same_spacing(own, spacing):
            return self
        shape = to_triple([max(1, round(n * s / w)) for n, s, w in zip(self.shape, own, spacing, strict=True)])
        scale = np.diag([*np.divide(spacing, own), 1.0])
        scale[:3, 3] = (np.subtract(self.shape, 1) - np.subtract(shape, 1) * np.divide(spacing, own)) / 2
        return Grid(shape, self.affine @ scale)

    def part(self, box: Box) -> Grid:
        """The grid of a box of its voxels, which may begin and end outside."""
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ [axis.start for axis in box]
        return Grid(to_triple([axis.stop - axis.start for axis in box]), affine)

    def divided(self, by: Triple) -> Grid:
        """The grid whose voxels are these, each divided along each axis into so many."""
        scale = np.diag([*np.divide(1, by), 1.0])
        scale[:3, 3] = (np.divide(1, by) - 1) / 2
        return Grid(to_triple(np.multiply(self.shape, by).tolist()), self.affine @ scale)

    def indices_in(self, other: Grid) -> Affine:
        """[4,4], from voxel indices of this grid to those of another."""
        return np.round(np.linalg.solve(other.affine, self.affine), _DECIMALS)

    def share_in(self, other: Grid, mask: npt.NDArray[np.bool_]) -> float:
        """Which share of a mask's voxels [D,H,W] on this grid lies within another; 1 of an empty mask."""
        to_other = self.indices_in(other)
        places = np.argwhere(mask) @ to_other[:3, :3].T + to_other[:3, 3]
        inside = np.all((places > -0.5) & (places < np.subtract(other.shape, 0.5)), axis=1)
        return float(np.mean(inside)) if len(places) else 1.0

    def is_same(self, other: Grid) -> bool:
        """Whether every voxel lies where that of the other grid with the same indices lies."""
        return difference(self, other, "") is None


def wrong_sizes(grids: Mapping[str, Grid], spacing: Spacing) -> Iterator[tuple[str, str, str]]:
    """Finds the grids whose voxels have another size than all should have: name, problem and remedy of each."""
    for name, grid in grids.items():
        if not is_same_spacing(grid.spacing, spacing):
            yield name, f"has voxels of {millimetres(grid.spacing)}, should have {millimetres(spacing)}", _RESAMPLE


def differing_grids(grids: Mapping[str, Grid]) -> Iterator[tuple[str, str, str]]:
    """Finds the grids that are not those of the others: name, problem and remedy of each.

    What most agree on is held for right, and where there is no majority, the first.

    Args:
        grids: by name, in one orientation.
    """

    def agreeing(name: str) -> int:
        return sum(other.is_same(grids[name]) for other in grids.values())

    reference = max(grids, key=agreeing, default="")
    for name, grid in grids.items():
        if found := difference(grid, grids[reference], reference):
            yield name, *found


def difference(grid: Grid, reference: Grid, name: str) -> tuple[str, str] | None:
    """Compares shape, voxel size, and where the affines put the corners of a volume: problem and remedy, or None."""
    if grid.shape != reference.shape:
        return f"has shape {grid.shape}, should have {reference.shape} as {name}", _RESAMPLE_OR_SPACE
    if np.abs(np.subtract(grid.spacing, reference.spacing) * grid.shape).max() > _TOLERANCE_MM:
        sizes = f"has voxels of {millimetres(grid.spacing)}, should have {millimetres(reference.spacing)} as {name}"
        return sizes, _RESAMPLE_OR_RELABEL
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * (*np.subtract(grid.shape, 1), 1)
    distance = float(np.abs((grid.affine - reference.affine) @ corners.T).max())
    if distance <= _TOLERANCE_MM:
        return None
    directions = [affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0) for affine in (grid.affine, reference.affine)]
    turned = np.abs(directions[0] - directions[1]).max() > 1e-3
    how = f"its axes point elsewhere than those of {name}" if turned else f"its origin is not that of {name}"
    return f"lies up to {distance:.3g} mm away from where {name} lies: {how}", _RESAMPLE_OR_RELABEL


def bounding_box(mask: npt.NDArray[np.bool_]) -> Box | None:
    """The smallest box that has all of a mask [D,H,W]; None if that is empty."""
    axes = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not all(len(positions) for positions in axes):
        return None
    x, y, z = (slice(int(positions[0]), int(positions[-1]) + 1) for positions in axes)
    return x, y, z
