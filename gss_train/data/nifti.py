"""Reads NIfTI files without trusting their headers, and writes them."""

from __future__ import annotations

import gzip
import logging
import math
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError

# Any: nibabel leaves most of their methods without types.
_HEADERS: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_MAGICS = (b"n+1", b"n+2")
_SCANNER_COORDINATES = 1
# nibabel repairs doubtful fields and prints what it did; what it rates at least so doubtful is an error here.
_DOUBTFUL = 30
_LOGGER = logging.getLogger(__name__)
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False


# What overflows becomes infinite, and a damaged header may hold NaN; the caller refuses both.
@np.errstate(all="ignore")
def read_nifti(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Reads a `.nii` or `.nii.gz` file of one part, NIfTI-1 or 2.

    Memory grows with what the file holds, not with what its header claims. A compressed file is read to its end, so
    that its checksum is tested. nibabel alone allocates what a header claims, and leaves the checksum untested.

    Returns:
        The voxels in the file's order of axes, scaled if the header says so, and the affine, [4,4].

    Raises:
        OSError: the file cannot be read.
        EOFError, OverflowError, ValueError, zlib.error: it is not a NIfTI file, or damaged; the message says in which
            way.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    try:
        header = _read_header(content)
        return _read_voxels(content, header), np.asarray(header.get_best_affine(), np.float64)
    except (HeaderDataError, WrapStructError) as error:
        raise ValueError(str(error)) from error


@np.errstate(all="ignore")
def read_nifti_grid(path: Path) -> tuple[tuple[int, ...], npt.NDArray[np.float64]]:
    """Reads shape and affine, as of `read_nifti`, from the header alone.

    Raises:
        OSError, EOFError, ValueError, zlib.error: likewise.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read(max(_HEADERS))
    try:
        header = _read_header(content)
        return tuple(map(int, header.get_data_shape())), np.asarray(header.get_best_affine(), np.float64)
    except (HeaderDataError, WrapStructError) as error:
        raise ValueError(str(error)) from error


def write_nifti(file: BinaryIO | gzip.GzipFile, voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
    """Writes NIfTI-1, such that every program finds the voxels where the affine says."""
    image: Any = nib.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, _SCANNER_COORDINATES)
    # Some programs read the one form of the place, some the other; a sheared one has no quaternion.
    try:
        image.set_qform(affine, _SCANNER_COORDINATES, strip_shears=False)
    except HeaderDataError:
        image.set_qform(None)
    image.to_stream(file)


def _read_header(content: bytes) -> Any:
    sizes = {int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")} & _HEADERS.keys()
    if not sizes:
        raise ValueError("it does not begin with the size of a NIfTI header")
    size = sizes.pop()
    header = _HEADERS[size](content[:size], check=False)
    # nibabel doubts offsets that are no multiple of 16, which other software writes; `_read_voxels` checks them.
    offset = header["vox_offset"].copy()
    header["vox_offset"] = 0
    header.check_fix(logger=_LOGGER, error_level=_DOUBTFUL)
    header["vox_offset"] = offset
    magic = bytes(header["magic"])[:3]
    if magic not in _MAGICS:
        raise ValueError(f"its header's magic number is {magic!r}, should be one of {_MAGICS}")
    return header


def _read_voxels(content: bytes, header: Any) -> npt.NDArray[Any]:
    shape, dtype = tuple(map(int, header.get_data_shape())), header.get_data_dtype()
    if min(shape, default=0) < 1:
        raise ValueError(f"its header claims the shape {shape}, should have at least one voxel along each axis")
    start = int(header.get_data_offset())
    if start < header["sizeof_hdr"]:
        raise ValueError(f"its header claims that the voxels begin at byte {start}, within the header itself")
    count = math.prod(shape)
    present, size = max(0, len(content) - start), count * dtype.itemsize
    if present < size:
        kind = f"voxels of type {dtype} and shape {shape}"
        raise ValueError(f"it holds {present} of the {size} bytes of {kind} that its header claims")
    voxels = np.frombuffer(content, dtype, count, start).reshape(shape, order="F")
    voxels = voxels.astype(dtype.newbyteorder("="), copy=False)
    slope, intercept = header.get_slope_inter()
    return voxels if slope is None else apply_read_scaling(voxels, slope, intercept)
