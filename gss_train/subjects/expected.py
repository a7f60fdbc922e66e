"""How large prepared volumes will be, from the header of a raw scan: before any is prepared."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

from gss_train.common import Triple, to_triple
from gss_train.data import VOXEL_DTYPE, Grid, VolumeError, read_grid
from gss_train.subjects.raw import RawData

# Longest boxes of a brain in 14 subjects of BraTS2018, left to right, front to back, bottom to top. The means are 140,
# 168 and 137: a data set takes less than this for each of its subjects.
_BRAIN_MM = (146.0, 179.0, 146.0)
# Of the same subjects: the box of a tumour, whose label is kept where it is on another grid; the mean.
_TUMOUR_BOX_MM3 = 0.38e6
_DESCRIPTION_BYTES = 17_000


@dataclass(frozen=True)
class ExpectedVolumes:
    """Prepared volumes, of which some are there already.

    Attributes:
        shape: voxels per axis of one.
        bytes_each: on the disk.
        missing: names of the subjects that are not prepared yet.
    """

    shape: Triple
    bytes_each: int
    missing: frozenset[str]

    @property
    def missing_bytes(self) -> int:
        """Of those that are not there yet."""
        return self.bytes_each * len(self.missing)

    def of(self, names: Iterable[str]) -> ExpectedVolumes:
        """The same, where so many subjects alone are used."""
        return dataclasses.replace(self, missing=self.missing & set(names))


def expect_volumes(raw: RawData) -> ExpectedVolumes | None:
    """Expect a brain of a usual size in scans like the first one whose header can be read; None if there is none.

    How large a brain is does not depend on how far a scan reaches around it. No volume reaches beyond its scan, or is
    smaller than `grown_size` where the scan is not.
    """
    grid = _first_grid(raw)
    if grid is None:
        return None
    wanted = grid if raw.spacing is None else grid.with_spacing(raw.spacing)
    shape = to_triple(
        [
            min(length, max(grown, math.ceil(brain / size)))
            for brain, size, length, grown in zip(_BRAIN_MM, wanted.spacing, wanted.shape, raw.grown_size, strict=True)
        ]
    )
    kept_label = 0.0 if wanted is grid else _TUMOUR_BOX_MM3 / math.prod(grid.spacing)
    bytes_each = math.prod(shape) * VOXEL_DTYPE.itemsize + round(kept_label) + _DESCRIPTION_BYTES
    there = {path.name.removesuffix(".npy") for path in raw.prepared_folder.glob("*.npy")}
    return ExpectedVolumes(shape, bytes_each, frozenset(raw.names) - there)


def _first_grid(raw: RawData) -> Grid | None:
    for subject in raw.subjects:
        try:
            return read_grid(next(iter(subject.images.values())))
        except VolumeError:
            # The preparation tells of it, and whether it ends there.
            continue
    return None
