"""Reads and writes volumes, whatever their file format, in one convention of axes and millimetres."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gss_train.common import UserError
from gss_train.data.datasets import VOLUME_ENDINGS
from gss_train.data.grids import Grid
from gss_train.data.metaimage import read_metaimage, read_metaimage_grid, write_metaimage

# Where the voxel axes of official BraTS files point.
_ORIENTATION = "LPS"
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
    def grid(self) -> Grid:
        """Where the voxels lie."""
        x, y, z = self.voxels.shape
        return Grid((x, y, z), self.affine)

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
    check_volume_file(path)
    try:
        if path.suffix == ".mha":
            volume = Volume(*read_metaimage(path))
        else:
            from gss_train.data.nifti import read_nifti  # noqa: PLC0415  (imports nibabel)

            volume = Volume(*read_nifti(path))
    except (OSError, EOFError, OverflowError, ValueError, zlib.error) as error:
        raise _unreadable(path, error) from error
    _check(path, volume)
    return volume


def read_grid(path: Path) -> Grid:
    """Reads where the voxels of a file lie, in the orientation of `reorient`, from its header alone.

    Raises:
        VolumeError: the header cannot be read or used.
    """
    check_volume_file(path)
    try:
        if path.suffix == ".mha":
            shape, affine = read_metaimage_grid(path)
        else:
            from gss_train.data.nifti import read_nifti_grid  # noqa: PLC0415  (imports nibabel)

            shape, affine = read_nifti_grid(path)
    except (OSError, EOFError, OverflowError, ValueError, zlib.error) as error:
        raise _unreadable(path, error) from error
    # One voxel in memory, whatever the header claims.
    volume = Volume(np.broadcast_to(np.uint8(0), shape), affine)
    _check(path, volume)
    return reorient(volume).grid


def check_volume_file(path: Path) -> None:
    """Looks whether there is a file that `read_volume` may be able to read.

    Raises:
        VolumeError: it is missing, may not be read, is no regular file or has a name of another format.
    """
    if not path.name.endswith(VOLUME_ENDINGS):
        raise VolumeError(f"{path}: file name ends with {path.suffix!r}, should end with .mha, .nii or .nii.gz")
    if path.exists() and not path.is_file():
        raise _unreadable(path, OSError("it is not a regular file"))
    try:
        path.open("rb").close()
    except OSError as error:
        raise _unreadable(path, error) from error


def write_volume(file: BinaryIO, name: str, voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
    """Writes a volume, or several as one file of four dimensions; the same voxels give the same file.

    Args:
        file: open for writing.
        name: that it will have, with one of `VOLUME_ENDINGS`.
        voxels: [D,H,W], or [D,H,W,number of volumes].
        affine: as of `Volume`.
    """
    from gss_train.data.nifti import write_nifti  # noqa: PLC0415  (imports nibabel)

    if name.endswith(".mha"):
        write_metaimage(file, voxels, affine)
    elif name.endswith(".gz"):
        # Without a time and a name.
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            write_nifti(packed, voxels, affine)
    else:
        write_nifti(file, voxels, affine)


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
        ValueError: `orientation` is none.
    """
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


def _unreadable(path: Path, error: Exception) -> VolumeError:
    kind = "MetaImage (.mha)" if path.suffix == ".mha" else "NIfTI file"
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return VolumeError(f"{path}: cannot be read, should be a {kind}: {reason}")


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
