"""Reads MetaImage files without trusting their headers, and writes them.

Source of the format: https://itk.org/Wiki/ITK/MetaIO/Documentation
SimpleITK would do with less: it reads voxels from whatever other file a header names, allocates what a header claims,
gives a volume where compressed voxels are damaged, and writes to no open file.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

# The format's world axes point left, posterior and superior; ours right, anterior and superior.
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0))
_LONGEST_HEADER = 1 << 16
_LAST_FIELD = "ElementDataFile"
_DTYPES = {
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
_DEFAULTS = {"ElementNumberOfChannels": "1", "HeaderSize": "0", "CompressedData": "False"}
_EXPECTED = {
    "ObjectType": "Image",
    "NDims": "3",
    "ElementNumberOfChannels": "1",
    "BinaryData": "True",
    "HeaderSize": "0",
    _LAST_FIELD: "LOCAL",
}

_Value = TypeVar("_Value")
_Number = TypeVar("_Number", int, float)


def read_metaimage(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Reads a binary `.mha` file of three dimensions that holds its own voxels.

    Memory grows with what the file holds, not with what its header claims.

    Returns:
        The voxels in the order (x,y,z) and the affine, [4,4], to millimetres right, anterior and superior.

    Raises:
        OSError: the file cannot be read.
        ValueError, zlib.error: it is no such file, or damaged; the message says in which way.
    """
    fields, data = _split(path.read_bytes())
    shape = _shape(fields)
    order = _choose(fields, {"True": ">", "False": "<"}, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    dtype = np.dtype(order + _choose(fields, _DTYPES, "ElementType"))
    size = math.prod(shape) * dtype.itemsize
    if _choose(fields, {"True": True, "False": False}, "CompressedData"):
        data = _decompress(data, size)
    if len(data) != size:
        found = "more" if len(data) > size else str(len(data))
        kind = f"voxels of type {dtype} and shape {shape}"
        raise ValueError(f"it holds {found} of the {size} bytes of {kind} that its header claims")
    voxels = np.frombuffer(data, dtype).reshape(shape, order="F")
    return voxels.astype(dtype.newbyteorder("=")), _affine(fields)


def read_metaimage_grid(path: Path) -> tuple[tuple[int, ...], npt.NDArray[np.float64]]:
    """Reads shape and affine, as of `read_metaimage`, from the header alone.

    Raises:
        OSError, ValueError: likewise.
    """
    with path.open("rb") as file:
        fields, _ = _split(file.read(_LONGEST_HEADER))
    return _shape(fields), _affine(fields)


def write_metaimage(file: BinaryIO, voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
    """Writes what `read_metaimage` reads, compressed, and arrays of four dimensions as well."""
    dtype, dimensions = voxels.dtype.newbyteorder("<"), voxels.ndim
    # The first axis varies fastest in the file.
    data = zlib.compress(np.ascontiguousarray(voxels.T, dtype).data)
    place, offset = np.eye(dimensions), np.zeros(dimensions)
    place[:3, :3], offset[:3] = _LPS_TO_RAS @ affine[:3, :3], _LPS_TO_RAS @ affine[:3, 3]
    spacing = np.linalg.norm(place, axis=0)
    fields = {
        "ObjectType": "Image",
        "NDims": dimensions,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": True,
        "CompressedDataSize": len(data),
        # Its rows are the directions of the voxel axes, which are the affine's columns.
        "TransformMatrix": _words((place / spacing).T.ravel()),
        "Offset": _words(offset),
        "CenterOfRotation": _words(np.zeros(dimensions)),
        "ElementSpacing": _words(spacing),
        "DimSize": " ".join(map(str, voxels.shape)),
        "ElementType": next(name for name, code in _DTYPES.items() if np.dtype(code) == dtype),
        _LAST_FIELD: "LOCAL",
    }
    file.write("".join(f"{name} = {value}\n" for name, value in fields.items()).encode("ascii"))
    file.write(data)


def _split(content: bytes) -> tuple[dict[str, str], memoryview]:
    """Separates the fields of the header from the data."""
    fields: dict[str, str] = {}
    position = 0
    while (end := content.find(b"\n", position, _LONGEST_HEADER)) >= 0:
        line = content[position:end].decode("latin-1")
        name, equals, value = map(str.strip, line.partition("="))
        if not equals:
            raise ValueError(f"its header has the line {line[:60]!r}, should be 'field = value'")
        if name in fields:
            raise ValueError(f"its header has the field {name!r} twice")
        fields[name] = value
        position = end + 1
        if name == _LAST_FIELD:
            return _DEFAULTS | fields, memoryview(content)[position:]
    raise ValueError(f"its header has no field {_LAST_FIELD!r}")


def _shape(fields: Mapping[str, str]) -> tuple[int, ...]:
    for name, value in _EXPECTED.items():
        _choose(fields, {value: value}, name)
    shape = tuple(_numbers(fields, 3, int, "DimSize"))
    if min(shape) < 1:
        raise ValueError(f"its header has DimSize {fields['DimSize']!r}, should be 3 numbers of at least 1")
    return shape


def _affine(fields: Mapping[str, str]) -> npt.NDArray[np.float64]:
    # As in `write_metaimage`, rows are the affine's columns.
    directions = np.reshape(_numbers(fields, 9, float, "TransformMatrix", "Orientation", "Rotation"), (3, 3)).T
    affine = np.eye(4)
    # What overflows becomes infinite, which the caller refuses.
    with np.errstate(over="ignore", invalid="ignore"):
        affine[:3, :3] = _LPS_TO_RAS @ (directions * _numbers(fields, 3, float, "ElementSpacing"))
        affine[:3, 3] = _LPS_TO_RAS @ _numbers(fields, 3, float, "Offset", "Position", "Origin")
    return affine


def _field(fields: Mapping[str, str], *names: str) -> str:
    """The field that goes by one of the names."""
    for name in names:
        if name in fields:
            return fields[name]
    raise ValueError(f"its header has no field {names[0]!r}")


def _choose(fields: Mapping[str, str], choices: Mapping[str, _Value], *names: str) -> _Value:
    """What the field that goes by one of the names stands for."""
    text = _field(fields, *names)
    if text not in choices:
        raise ValueError(f"its header has {names[0]} {text!r}, should be {' or '.join(map(repr, choices))}")
    return choices[text]


def _numbers(fields: Mapping[str, str], count: int, kind: Callable[[str], _Number], *names: str) -> list[_Number]:
    text = _field(fields, *names)
    try:
        numbers = [kind(word) for word in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise ValueError(f"its header has {names[0]} {text!r}, should be {count} numbers")
    return numbers


def _words(numbers: Iterable[float]) -> str:
    # Plus 0: there is no need for a negative zero.
    return " ".join(repr(float(number) + 0.0) for number in numbers)


def _decompress(data: memoryview, size: int) -> memoryview:
    """Decompresses no more than one byte above `size`."""
    decompressor = zlib.decompressobj()
    voxels = decompressor.decompress(data, min(size + 1, sys.maxsize))
    if len(voxels) <= size and not decompressor.eof:
        raise ValueError("its compressed voxels end early")
    return memoryview(voxels)
