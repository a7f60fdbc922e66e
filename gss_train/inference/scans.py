"""Reads the raw scans of one subject for a prediction, and says what is wrong or doubtful about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from gss_train.common import UserError
from gss_train.data import (
    MODALITIES,
    Dataset,
    Fault,
    Grid,
    Spacing,
    Subject,
    Volume,
    check_volumes,
    network_grid,
    place,
    read_volume,
    reorient,
)


@dataclass(frozen=True)
class RawScans:
    """The scans of one subject, on one grid.

    Attributes:
        name: of the subject.
        files: by modality, in the order of `MODALITIES`.
        voxels: by modality, [D,H,W] in the orientation of `reorient`, of the voxel size that the networks see.
        grid: where these lie.
        resampled: the modalities that were brought there from another grid.
        first: the first file as it is; a prediction goes back to its grid.
        first_grid: that grid, in the orientation of `reorient`.
        warnings: what is doubtful; one sentence each, which names the file.
    """

    name: str
    files: dict[str, Path]
    voxels: dict[str, npt.NDArray[Any]]
    grid: Grid
    resampled: tuple[str, ...]
    first: Volume
    first_grid: Grid
    warnings: tuple[str, ...]

    @property
    def available(self) -> tuple[bool, ...]:
        """Whether there is a scan, for each of `MODALITIES`."""
        return tuple(modality in self.files for modality in MODALITIES)

    @property
    def missing(self) -> tuple[str, ...]:
        """The modalities without a scan."""
        return tuple(modality for modality in MODALITIES if modality not in self.files)


def read_scans(subject: Subject, dataset: Dataset, spacing: Spacing, *, one_grid: bool) -> RawScans:
    """Reads and verifies scans, as a preparation for training does, and looks for what a network cannot cope with.

    Args:
        subject: its scans, one at least; a label is not looked at.
        dataset: what the networks were trained on; scans of another voxel size are no fault.
        spacing: voxel size in millimetres that the networks see.
        one_grid: whether the scans have to be on one grid as they are.

    Raises:
        VolumeError: a file cannot be read or is damaged.
        UserError: the scans lie on different grids and may not, hold no brain, are copies of each other or without a
            background, or cannot be brought to the voxel size.
    """
    files = {modality: subject.images[modality] for modality in MODALITIES if modality in subject.images}
    raw = {modality: read_volume(path) for modality, path in files.items()}
    volumes = {modality: reorient(volume) for modality, volume in raw.items()}
    unlabelled, any_size = replace(subject, images=files, label=None), replace(dataset, spacing=None)
    faults = check_volumes(unlabelled, any_size, volumes, None if one_grid else spacing)
    errors = [_line(subject, fault) for fault in faults if fault.severity == "error"]
    if errors:
        raise UserError("\n".join(errors))
    first = next(iter(files))
    grid, first_grid = network_grid(volumes, spacing), volumes[first].grid
    # On one grid they are to within what the check of them lets pass.
    placed = volumes if one_grid and grid.is_same(first_grid) else place(volumes, grid)
    return RawScans(
        subject.name,
        files,
        {modality: volume.voxels for modality, volume in placed.items()},
        grid,
        tuple(modality for modality, volume in placed.items() if volume is not volumes[modality]),
        raw[first],
        first_grid,
        tuple(_line(subject, fault) for fault in faults),
    )


def _line(subject: Subject, fault: Fault) -> str:
    return f"{fault.file or subject.name}: {fault.problem}; {fault.remedy}"
