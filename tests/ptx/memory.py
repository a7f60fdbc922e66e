"""Memory that a kernel may touch; every access is checked: bounds, alignment, races."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tests.ptx.number_formats import Array, BoolArray
from tests.ptx.program import Instruction, PTXError
from tests.ptx.races import WatchedBytes

SHARED_BASE = 1024
"""Address of a CTA's shared memory: not 0, so that a forgotten base is out of bounds."""


class AccessError(PTXError):
    """An access outside the memory a kernel was given, or a misaligned one."""


class Access(NamedTuple):
    """What the active threads do at one instruction.

    Attributes:
        instruction: that does it.
        addresses: one per active thread.
        size: in bytes, of each.
        stamps: of `tests.ptx.races`, one per active thread.
        alignment: in bytes, where it is not the size.
    """

    instruction: Instruction
    addresses: Array
    size: int
    stamps: Array
    alignment: int | None = None

    def check_alignment(self) -> None:
        """Raise an error that names the first misaligned address."""
        alignment = self.alignment or self.size
        if (misaligned := self.addresses % alignment != 0).any():
            address = int(self.addresses[np.argmax(misaligned)])
            raise AccessError(
                f"{self.instruction}: got misaligned address {address:#x}, need a multiple of {alignment}"
            )


class _Region:
    """One allocation: its bytes, and which of them belong to tensors that were given."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self.start, self.size = storage.data_ptr(), storage.nbytes()
        self.bytes: NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * self.size).from_address(self.start))
        self.given = torch.zeros(self.size, dtype=torch.uint8)
        self.names: list[str] = []
        self.keeps = storage
        self.watched = WatchedBytes(self.bytes, 1, ())

    def add(self, tensor: torch.Tensor, name: str) -> None:
        size = tensor.element_size()
        strides = [stride * size for stride in tensor.stride()]
        start = tensor.storage_offset() * size
        torch.as_strided(self.given, (*tensor.shape, size), (*strides, 1), start).fill_(1)
        self.names.append(name)

    def __str__(self) -> str:
        return f"{', '.join(self.names)} ({self.start:#x} to {self.start + self.size:#x})"


class GlobalMemory:
    """The memory of some tensors: of each allocation only the bytes that are elements of a tensor."""

    def __init__(self) -> None:
        self._regions: dict[int, _Region] = {}

    def add(self, tensor: torch.Tensor, name: str) -> None:
        """Let kernels touch a tensor's elements; `name` is for messages."""
        if tensor.numel():
            storage = tensor.untyped_storage()
            region = self._regions.setdefault(storage.data_ptr(), _Region(storage))
            region.add(tensor, name)

    def begin_launch(self, warps_per_cta: int, instructions: Sequence[Instruction]) -> None:
        """Forget earlier accesses, which the end of a launch orders."""
        for region in self._regions.values():
            region.watched = WatchedBytes(region.bytes, warps_per_cta, instructions)

    def load(self, access: Access) -> NDArray[np.uint8]:
        """The bytes, a row for each thread."""
        access.check_alignment()
        found = np.empty((len(access.addresses), access.size), np.uint8)
        for region, threads in self._regions_of(access):
            places = self._places(access, region, threads)
            found[threads] = region.watched.read(places, access.stamps[threads], access.instruction)
        return found

    def store(self, access: Access, values: NDArray[np.uint8]) -> None:
        """Write the bytes, a row for each thread."""
        access.check_alignment()
        for region, threads in self._regions_of(access):
            places = self._places(access, region, threads)
            region.watched.write(places, access.stamps[threads], access.instruction, values[threads])

    def _regions_of(self, access: Access) -> list[tuple[_Region, BoolArray]]:
        """The regions that hold the addresses, and which threads' addresses they are."""
        starts = np.array(sorted(self._regions), np.uint64)
        numbers = np.searchsorted(starts, access.addresses, side="right")
        if not (numbers > 0).all():
            raise self._outside(access, int(access.addresses[np.argmin(numbers)]))
        return [(self._regions[int(starts[number - 1])], numbers == number) for number in np.unique(numbers).tolist()]

    def _places(self, access: Access, region: _Region, threads: BoolArray) -> Array:
        """Offsets of all the bytes within the region, a row for each thread."""
        offsets = (access.addresses[threads] - np.uint64(region.start)).astype(np.int64)
        if (beyond := offsets > region.size - access.size).any():
            raise self._outside(access, region.start + int(offsets[np.argmax(beyond)]))
        places = offsets[:, None] + np.arange(access.size)
        given = region.given.numpy()[places].all(axis=1)
        if not given.all():
            address = region.start + int(offsets[np.argmin(given)])
            raise AccessError(
                f"{access.instruction}: {access.size} bytes at {address:#x} are within the allocation of {region}, but "
                "not all are elements of a tensor"
            )
        return places

    def _outside(self, access: Access, address: int) -> AccessError:
        nearest = min(
            self._regions.values(),
            key=lambda region: max(region.start - address, address - (region.start + region.size)),
            default="none, as there is no memory",
        )
        return AccessError(
            f"{access.instruction}: {access.size} bytes at {address:#x} are in no tensor; the nearest is {nearest}"
        )


class SharedMemory:
    """The shared memories of the CTAs that run together; their bytes are NaN in every format until written."""

    def __init__(self, size: int, num_ctas: int, warps_per_cta: int, instructions: Sequence[Instruction]) -> None:
        self._size = size
        self._watched = WatchedBytes(np.full(size * num_ctas, 0xFF, np.uint8), warps_per_cta, instructions)

    def load(self, access: Access, ctas: Array) -> NDArray[np.uint8]:
        """The bytes, a row for each thread; `ctas` are the threads' own, counted from the first of these."""
        return self._watched.read(self._places(access, ctas), access.stamps, access.instruction)

    def store(self, access: Access, ctas: Array, values: NDArray[np.uint8]) -> None:
        """Write the bytes, a row for each thread."""
        self._watched.write(self._places(access, ctas), access.stamps, access.instruction, values)

    def _places(self, access: Access, ctas: Array) -> Array:
        access.check_alignment()
        offsets = access.addresses.astype(np.int64) - SHARED_BASE
        if (outside := (offsets < 0) | (offsets > self._size - access.size)).any():
            place = int(offsets[np.argmax(outside)])
            raise AccessError(
                f"{access.instruction}: {access.size} bytes at {place} are not in the {self._size} of shared memory"
            )
        places: Array = (ctas * self._size + offsets)[:, None] + np.arange(access.size)
        return places
