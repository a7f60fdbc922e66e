"""Reads NIfTI files without trusting their headers."""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from typing import IO, TYPE_CHECKING, Any, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

if TYPE_CHECKING:
    from pathlib import Path

# Any: nibabel leaves most of their methods without types.
_HEADERS: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_MAGICS = (b"n+1", b"n+2")
_CHUNK = 1 << 24
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
    that its checksum is tested.

    Returns:
        The voxels in the file's order of axes, scaled if the header says so, and the affine, [4,4].

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a NIfTI file, or damaged; the message says in which way.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            stream = cast("IO[bytes]", file)
            header = _read_header(stream)
            voxels = _read_voxels(stream, header)
            while stream.read(_CHUNK):
                pass
        affine = np.asarray(header.get_best_affine(), np.float64)
    except (EOFError, zlib.error, HeaderDataError, OverflowError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    return voxels, affine


def _read_header(stream: IO[bytes]) -> Any:
    block = stream.read(4)
    sizes = {int.from_bytes(block, "little"), int.from_bytes(block, "big")} & _HEADERS.keys()
    if not sizes:
        raise ValueError("it does not begin with the size of a NIfTI header")
    size = sizes.pop()
    block += _read_exactly(stream, size - 4, f"a header of {size} bytes")
    header = _HEADERS[size](block, check=False)
    # nibabel doubts offsets that are no multiple of 16, which other software writes; `_read_voxels` checks them.
    offset = header["vox_offset"].copy()
    header["vox_offset"] = 0
    header.check_fix(logger=_LOGGER, error_level=_DOUBTFUL)
    header["vox_offset"] = offset
    magic = bytes(header["magic"])[:3]
    if magic not in _MAGICS:
        raise ValueError(f"its header's magic number is {magic!r}, should be one of {_MAGICS}")
    return header


def _read_voxels(stream: IO[bytes], header: Any) -> npt.NDArray[Any]:
    shape, dtype = tuple(map(int, header.get_data_shape())), header.get_data_dtype()
    if min(shape, default=0) < 1:
        raise ValueError(f"its header claims the shape {shape}, should have at least one voxel along each axis")
    start, here = int(header.get_data_offset()), int(header["sizeof_hdr"])
    if start < here:
        raise ValueError(f"its header claims that the voxels begin at byte {start}, within the header itself")
    _skip(stream, start - here)
    raw = _read_exactly(stream, math.prod(shape) * dtype.itemsize, f"voxels of type {dtype} and shape {shape}")
    voxels = np.frombuffer(raw, dtype).reshape(shape, order="F")
    voxels = voxels.astype(dtype.newbyteorder("="), copy=False)
    slope, intercept = header.get_slope_inter()
    if slope is None:
        return voxels
    return apply_read_scaling(voxels, slope, intercept)


def _skip(stream: IO[bytes], count: int) -> None:
    while count > 0:
        chunk = stream.read(min(count, _CHUNK))
        if not chunk:
            raise ValueError("it ends before the voxels that its header claims")
        count -= len(chunk)


def _read_exactly(stream: IO[bytes], count: int, what: str) -> bytearray:
    """Reads by chunks: asking for all at once would allocate what a damaged header claims."""
    data = bytearray()
    while len(data) < count:
        chunk = stream.read(min(count - len(data), _CHUNK))
        if not chunk:
            raise ValueError(f"it holds {len(data)} of the {count} bytes of {what} that its header claims")
        data += chunk
    return data
