"""Compares the voxel grids of one subject's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from gss_train.data.volumes import Volume

_TOLERANCE_MM = 0.01
_RESAMPLE = "resample it onto the grid of the other files, the label by nearest neighbour"
_RESAMPLE_OR_RELABEL = f"{_RESAMPLE}; if only its header is wrong, copy that of another file"


def differing_grids(
    volumes: Mapping[str, Volume], spacing: tuple[float, float, float] | None
) -> Iterator[tuple[str, str, str]]:
    """Finds the volumes that are not on the grid of the others: name, problem and remedy of each.

    What most agree on is held for right, and where there is no majority, the first.

    Args:
        volumes: by name, in one orientation.
        spacing: voxel size in millimetres that all should have; None: any.
    """

    def agreeing(name: str) -> int:
        return sum(not _difference(other, volumes[name], "") for other in volumes.values())

    reference = max(volumes, key=agreeing, default="")
    for name, volume in volumes.items():
        if spacing is not None and np.abs(np.subtract(volume.spacing, spacing)).max() > _TOLERANCE_MM:
            yield name, f"has voxels of {_millimetres(volume.spacing)}, should have {_millimetres(spacing)}", _RESAMPLE
        elif difference := _difference(volume, volumes[reference], reference):
            yield name, *difference


def _difference(volume: Volume, reference: Volume, name: str) -> tuple[str, str] | None:
    """Compares shape, voxel size, and where the affines put the corners of the volume."""
    shape, wanted = volume.voxels.shape, reference.voxels.shape
    if shape != wanted:
        return f"has shape {shape}, should have {wanted} as {name}", _RESAMPLE
    if np.abs(np.subtract(volume.spacing, reference.spacing) * shape).max() > _TOLERANCE_MM:
        sizes = f"has voxels of {_millimetres(volume.spacing)}, should have {_millimetres(reference.spacing)} as {name}"
        return sizes, _RESAMPLE_OR_RELABEL
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * (*np.subtract(shape, 1), 1)
    distance = float(np.abs((volume.affine - reference.affine) @ corners.T).max())
    if distance <= _TOLERANCE_MM:
        return None
    directions = [
        affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0) for affine in (volume.affine, reference.affine)
    ]
    turned = np.abs(directions[0] - directions[1]).max() > 1e-3
    how = f"its axes point elsewhere than those of {name}" if turned else f"its origin is not that of {name}"
    return f"lies up to {distance:.3g} mm away from where {name} lies: {how}", _RESAMPLE_OR_RELABEL


def _millimetres(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{length:.4g}" for length in spacing) + " mm"
