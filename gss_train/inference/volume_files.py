"""Writes voxels as NIfTI or MetaImage files, such that every program finds them where the scans are."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

if TYPE_CHECKING:
    from collections.abc import Iterable

VOLUME_ENDINGS = (".nii.gz", ".nii", ".mha")

# Both formats' code for coordinates of the scanner.
_SCANNER = 1
_ELEMENT_TYPES = {"uint8": "MET_UCHAR", "uint16": "MET_USHORT", "float32": "MET_FLOAT"}
# Our world axes point right, anterior and superior; ITK's left, posterior and superior.
_RAS_TO_LPS = np.diag((-1.0, -1.0, 1.0))


def write_volumes(
    file: BinaryIO,
    ending: str,
    volumes: Iterable[npt.NDArray[Any]],
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    affine: npt.NDArray[np.float64],
) -> None:
    """Writes one volume, or several as one file of four dimensions, of which never more than one is in memory.

    Args:
        file: open for writing.
        ending: of its name, one of `VOLUME_ENDINGS`.
        volumes: each [D,H,W]; taken one by one.
        shape: (D, H, W), or (D, H, W, number of volumes).
        dtype: uint8, uint16 or float32.
        affine: [4,4], from voxel indices to millimetres right, anterior and superior.
    """
    kind = np.dtype(dtype)
    parts = (np.asarray(volume, kind.newbyteorder("<")).tobytes(order="F") for volume in volumes)
    if ending == ".mha":
        _write_metaimage(file, parts, shape, kind, affine)
    elif ending == ".nii.gz":
        # Neither time nor name: the same label map is the same file.
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as stream:
            _write_nifti(stream, parts, shape, kind, affine)
    else:
        _write_nifti(file, parts, shape, kind, affine)


def _write_nifti(
    file: Any, parts: Iterable[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], affine: npt.NDArray[np.float64]
) -> None:
    header: Any = nib.Nifti1Header(endianness="<")  # type: ignore[no-untyped-call]
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    # Some programs read the one form of the place, some the other; a sheared one has no quaternion.
    try:
        header.set_qform(affine, _SCANNER, strip_shears=False)
    except HeaderDataError:
        header.set_qform(None, 0)
        header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    header.set_sform(affine, _SCANNER)
    header.write_to(file)
    for part in parts:
        file.write(part)


def _write_metaimage(
    file: BinaryIO,
    parts: Iterable[bytes],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    affine: npt.NDArray[np.float64],
) -> None:
    compressor = zlib.compressobj()
    # The header comes first and says how long this is.
    data = b"".join([*(compressor.compress(part) for part in parts), compressor.flush()])
    dimensions = len(shape)
    place = np.eye(dimensions)
    place[:3, :3] = _RAS_TO_LPS @ affine[:3, :3]
    spacing = np.linalg.norm(place, axis=0)
    offset = [*(_RAS_TO_LPS @ affine[:3, 3]), *[0.0] * (dimensions - 3)]
    fields = {
        "ObjectType": "Image",
        "NDims": dimensions,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": True,
        "CompressedDataSize": len(data),
        # Rows are the directions of the voxel axes, which are the affine's columns.
        "TransformMatrix": _numbers((place / spacing).T.ravel()),
        "Offset": _numbers(offset),
        "CenterOfRotation": _numbers([0.0] * dimensions),
        "ElementSpacing": _numbers(spacing),
        "DimSize": " ".join(map(str, shape)),
        "ElementType": _ELEMENT_TYPES[dtype.name],
        "ElementDataFile": "LOCAL",
    }
    file.write("".join(f"{name} = {value}\n" for name, value in fields.items()).encode("ascii"))
    file.write(data)


def _numbers(values: Iterable[float]) -> str:
    # Plus 0: there is no need for a negative zero.
    return " ".join(repr(float(value) + 0.0) for value in values)
