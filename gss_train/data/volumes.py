"""Reads one scan or annotation, whatever its file format, into one convention of axes and millimetres."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from gss_train.errors import UserError

_NIFTI_ERRORS = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)
# ITK's world axes point left, posterior and superior; ours right, anterior and superior.
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))


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


def read_volume(path: Path) -> Volume:
    """Reads a `.mha`, `.nii` or `.nii.gz` file.

    Args:
        path: file to read.

    Returns:
        The volume; both formats come out in the same axis order and the same world coordinates.

    Raises:
        VolumeError: the file cannot be read, is not three-dimensional, or holds something other than finite numbers.
    """
    path = Path(path)
    if path.suffix == ".mha":
        volume = _read_metaimage(path)
    elif path.name.endswith((".nii", ".nii.gz")):
        volume = _read_nifti(path)
    else:
        raise VolumeError(f"{path}: file name ends with {path.suffix!r}, should end with .mha, .nii or .nii.gz")
    _check(path, volume)
    return volume


def _read_metaimage(path: Path) -> Volume:
    try:
        image: Any = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise VolumeError(f"{path}: cannot be read, should be a MetaImage (.mha): {_last_line(error)}") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        shape = f"{image.GetDimension()} dimensions and {image.GetNumberOfComponentsPerPixel()} numbers a voxel"
        raise VolumeError(f"{path}: has {shape}, should have 3 dimensions and 1 number a voxel")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Volume(SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), _LPS_TO_RAS @ affine)


def _read_nifti(path: Path) -> Volume:
    try:
        image: Any = nib.load(path)
        voxels = np.asarray(image.dataobj)
    except _NIFTI_ERRORS as error:
        raise VolumeError(f"{path}: cannot be read, should be a NIfTI file: {_last_line(error)}") from error
    return Volume(voxels, np.asarray(image.affine, np.float64))


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
    if not np.isfinite(volume.affine).all() or np.linalg.det(volume.affine) == 0:
        raise VolumeError(f"{path}: has the affine {volume.affine.tolist()}, should be finite and invertible")
