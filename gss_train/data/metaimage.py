"""Reads MetaImage files without trusting their headers."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pathlib import Path

# ITK's world axes point left, posterior and superior; ours right, anterior and superior.
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
_LONGEST_HEADER = 1 << 16
_LAST_FIELD = b"ElementDataFile"
_ELEMENT_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MOST_DIGITS = 18


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    compressed: bool
    affine: npt.NDArray[np.float64]


def read_metaimage(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Reads a binary `.mha` file of three dimensions that holds its own voxels.

    Memory grows with what the file holds, not with what its header claims.
    Source of the format: https://itk.org/Wiki/ITK/MetaIO/Documentation

    Returns:
        The voxels in the order (x,y,z) and the affine, [4,4], to millimetres right, anterior and superior.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file, or damaged; the message says in which way.
    """
    fields, data = _split(path.read_bytes())
    header = _parse(fields)
    size = math.prod(header.shape) * header.dtype.itemsize
    if header.compressed:
        data = _decompress(data, size)
    if len(data) != size:
        kind = f"voxels of type {header.dtype} and shape {header.shape}"
        found = "more" if len(data) > size else str(len(data))
        raise ValueError(f"it holds {found} of the {size} bytes of {kind} that its header claims")
    voxels = np.frombuffer(data, header.dtype).reshape(header.shape, order="F")
    return voxels.astype(header.dtype.newbyteorder("=")), header.affine


def _split(content: bytes) -> tuple[dict[str, str], memoryview]:
    """Separates the fields of the header from the data."""
    fields: dict[str, str] = {}
    position = 0
    while (end := content.find(b"\n", position, _LONGEST_HEADER)) >= 0:
        key, equals, value = content[position:end].partition(b"=")
        if not equals:
            raise ValueError(f"its header has the line {content[position:end][:60]!r}, should be 'field = value'")
        name = key.strip().decode("latin-1")
        if name in fields:
            raise ValueError(f"its header has the field {name!r} twice")
        fields[name] = value.strip().decode("latin-1")
        position = end + 1
        if key.strip() == _LAST_FIELD:
            return fields, memoryview(content)[position:]
    raise ValueError("its header has no field 'ElementDataFile'")


def _parse(fields: dict[str, str]) -> _Header:
    _require(fields, "ObjectType", "Image")
    _require(fields, "ElementDataFile", "LOCAL")
    dimensions, channels = fields.get("NDims", "missing"), fields.get("ElementNumberOfChannels", "1")
    if (dimensions, channels) != ("3", "1"):
        raise ValueError(f"it has {dimensions} dimensions and {channels} numbers a voxel, should have 3 and 1")
    if not _flag(fields, "BinaryData"):
        raise ValueError("its voxels are written as text, should be binary")
    if fields.get("HeaderSize", "0") != "0":
        raise ValueError(f"its header has HeaderSize {fields['HeaderSize']!r}, should be 0 or missing")
    element = _field(fields, "ElementType")
    if element not in _ELEMENT_TYPES:
        raise ValueError(f"its voxels are of type {element!r}, should be one of {', '.join(_ELEMENT_TYPES)}")
    big_endian = _flag(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    dtype = np.dtype(_ELEMENT_TYPES[element]).newbyteorder(">" if big_endian else "<")
    compressed = "CompressedData" in fields and _flag(fields, "CompressedData")
    return _Header(_parse_shape(_field(fields, "DimSize")), dtype, compressed, _parse_affine(fields))


def _parse_shape(text: str) -> tuple[int, int, int]:
    sizes = [int(word) for word in text.split() if word.isdecimal() and len(word) <= _MOST_DIGITS]
    if len(sizes) != 3 or len(text.split()) != 3 or min(sizes) < 1:
        raise ValueError(f"its header has DimSize {text!r}, should be three sizes of at least 1")
    return sizes[0], sizes[1], sizes[2]


def _parse_affine(fields: dict[str, str]) -> npt.NDArray[np.float64]:
    # The file's rows are the directions of the voxel axes, the affine's columns.
    directions = _numbers(fields, 9, "TransformMatrix", "Orientation", "Rotation").reshape(3, 3).T
    affine = np.eye(4)
    # What overflows becomes infinite, which the caller refuses.
    with np.errstate(over="ignore", invalid="ignore"):
        affine[:3, :3] = directions * _numbers(fields, 3, "ElementSpacing")
        affine[:3, 3] = _numbers(fields, 3, "Offset", "Position", "Origin")
        return np.asarray(_LPS_TO_RAS @ affine, np.float64)


def _field(fields: dict[str, str], *names: str) -> str:
    """Returns the field that goes by one of the names."""
    for name in names:
        if name in fields:
            return fields[name]
    raise ValueError(f"its header has no field {names[0]!r}")


def _require(fields: dict[str, str], name: str, value: str) -> None:
    if _field(fields, name) != value:
        raise ValueError(f"its header has {name} {fields[name]!r}, should be {value!r}")


def _flag(fields: dict[str, str], *names: str) -> bool:
    text = _field(fields, *names)
    if text not in {"True", "False"}:
        raise ValueError(f"its header has {names[0]} {text!r}, should be True or False")
    return text == "True"


def _numbers(fields: dict[str, str], count: int, *names: str) -> npt.NDArray[np.float64]:
    text = _field(fields, *names)
    try:
        numbers = np.array([float(word) for word in text.split()])
    except ValueError as error:
        raise ValueError(f"its header has {names[0]} {text!r}, should be {count} numbers") from error
    if len(numbers) != count:
        raise ValueError(f"its header has {names[0]} {text!r}, should be {count} numbers")
    return numbers


def _decompress(data: memoryview, size: int) -> memoryview:
    """Decompresses no more than one byte above `size`."""
    decompressor = zlib.decompressobj()
    try:
        decompressed = decompressor.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(f"its compressed voxels are damaged: {error}") from error
    if len(decompressed) <= size and not decompressor.eof:
        raise ValueError("its compressed voxels end early")
    return memoryview(decompressed)
