"""Reads one scan or annotation, whatever its file format, into one convention of axes and millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gss_train.common import UserError
from gss_train.data.metaimage import read_metaimage

# Where the voxel axes of official BraTS files point.
_ORIENTATION = "LPS"
_AXIS_OF = {"L": "x", "R": "x", "P": "y", "A": "y", "I": "z", "S": "z"}
# Scanners and their rooms are smaller; what lies beyond comes from a damaged header.
_FARTHEST_MM, _SMALLEST_VOXEL_MM = 1e6, 1e-6


class VolumeError(UserError):
    """A file is not a usable volume; the message names it, what it is and what it should be."""


@dataclass(frozen=True)
class Volume:
    """One scan or annotation.

    Attributes:
        voxels: [D,H,W] in the order (x,y,z) in which nibabel gives them, numbers of the file's own type.
        affine: [4,4] float64, from voxel indices to millimetres right, anterior and superior.
    """

    voxels: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in millimetres between neighbouring voxels along each axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def orientation(self) -> str:
        """Where each voxel axis points most: one letter of "LR", "PA" and "IS" each, such as "LPS"."""
        return "".join(_orientations().aff2axcodes(self.affine))


def read_volume(path: Path) -> Volume:
    """Reads a `.mha`, `.nii` or `.nii.gz` file.

    Args:
        path: file to read.

    Returns:
        The volume; both formats come out in the same axis order and the same world coordinates.

    Raises:
        VolumeError: the file cannot be read or is damaged, is not three-dimensional, or holds something other than
            finite numbers.
    """
    path = Path(path)
    if path.suffix == ".mha":
        read, kind = read_metaimage, "MetaImage (.mha)"
    elif path.name.endswith((".nii", ".nii.gz")):
        from gss_train.data.nifti import read_nifti  # noqa: PLC0415  (imports nibabel)

        read, kind = read_nifti, "NIfTI file"
    else:
        raise VolumeError(f"{path}: file name ends with {path.suffix!r}, should end with .mha, .nii or .nii.gz")
    if path.exists() and not path.is_file():
        raise VolumeError(f"{path}: cannot be read, should be a {kind}: it is not a regular file")
    try:
        volume = Volume(*read(path))
    except (OSError, ValueError) as error:
        raise VolumeError(f"{path}: cannot be read, should be a {kind}: {_last_line(error)}") from error
    _check(path, volume)
    return volume


def reorient(volume: Volume) -> Volume:
    """Permutes and flips the axes such that they point left, posterior and superior, as those of official BraTS files.

    Nothing is resampled: of an oblique volume, each axis takes the direction that it is nearest to, and every voxel
    keeps its value and its place in the world.

    Returns:
        A volume that shares the voxels' memory; `volume` itself if it is so already.
    """
    if volume.orientation == _ORIENTATION:
        return volume
    moves = _moves(volume.orientation, _ORIENTATION)
    affine = volume.affine @ _orientations().inv_ornt_aff(moves, volume.voxels.shape)
    return Volume(_orientations().apply_orientation(volume.voxels, moves), affine)


def restore_orientation(voxels: npt.NDArray[Any], orientation: str) -> npt.NDArray[Any]:
    """Undoes `reorient`, for predictions that go back to the grid of the raw files.

    Args:
        voxels: [D,H,W], whose axes point left, posterior and superior.
        orientation: of the raw volume, see `Volume.orientation`.

    Returns:
        The voxels [D',H',W'] on the raw grid, sharing memory with `voxels`.

    Raises:
        ValueError: `orientation` does not name each of the three directions once, or `voxels` has other dimensions.
    """
    if sorted(_AXIS_OF.get(letter, "") for letter in orientation) != ["x", "y", "z"]:
        raise ValueError(f"orientation: got {orientation!r}, need one letter each of 'LR', 'PA' and 'IS'")
    if voxels.ndim != 3:
        raise ValueError(f"voxels: got shape {voxels.shape}, need three dimensions")
    restored: npt.NDArray[Any] = _orientations().apply_orientation(voxels, _moves(_ORIENTATION, orientation))
    return restored


def _orientations() -> Any:
    # What is prepared can be used without nibabel.
    from nibabel import orientations  # noqa: PLC0415

    return orientations


def _moves(start: str, end: str) -> npt.NDArray[Any]:
    """Finds which axis goes where, and whether it is flipped."""
    orientations = _orientations()
    return np.asarray(orientations.ornt_transform(orientations.axcodes2ornt(start), orientations.axcodes2ornt(end)))


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _check(path: Path, volume: Volume) -> None:
    voxels = volume.voxels
    if voxels.ndim != 3 or 0 in voxels.shape:
        raise VolumeError(f"{path}: has shape {voxels.shape}, should have three dimensions and at least one voxel")
    if voxels.dtype.kind not in "iuf":
        raise VolumeError(f"{path}: holds voxels of type {voxels.dtype}, should hold integer or floating-point numbers")
    if voxels.dtype.kind == "f":
        count = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
        if count:
            raise VolumeError(f"{path}: {count} of {voxels.size} voxels are NaN or infinite, all should be finite")
    _check_affine(path, volume.affine)


def _check_affine(path: Path, affine: npt.NDArray[np.float64]) -> None:
    usable = np.isfinite(affine).all() and np.abs(affine).max() < _FARTHEST_MM
    usable = usable and np.linalg.norm(affine[:3, :3], axis=0).min() > _SMALLEST_VOXEL_MM
    if not usable or np.isnan(_orientations().io_orientation(affine)).any():
        raise VolumeError(f"{path}: has the affine {affine.tolist()}, should be finite and invertible")
