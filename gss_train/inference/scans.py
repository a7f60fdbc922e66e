"""Reads the raw scans of one subject for a prediction, and says what is wrong or doubtful about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gss_train.common import UserError
from gss_train.data import MODALITIES, Dataset, Fault, Volume, check_volumes, read_volume, reorient
from gss_train.inference.doubts import find_doubts, refuse_without_background

if TYPE_CHECKING:
    from gss_train.common import Triple
    from gss_train.data import Subject


class ScanError(UserError):
    """Scans cannot be used, or do not fit together; the message has one line for each file at fault."""


@dataclass(frozen=True)
class RawGrid:
    """The voxels of a raw file, to which a prediction goes back.

    Attributes:
        shape: voxels per axis, in the file's own order.
        affine: [4,4] float64, from voxel indices to millimetres right, anterior and superior.
        orientation: where the axes point, such as "LPS".
        ending: of the file that holds a prediction on this grid, ".nii.gz" or ".mha".
    """

    shape: Triple
    affine: npt.NDArray[np.float64]
    orientation: str
    ending: str

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in millimetres along the file's own axes."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z


@dataclass(frozen=True)
class RawScans:
    """The scans of one subject, on one grid.

    Attributes:
        name: of the subject.
        files: by modality, in the order of `MODALITIES`.
        voxels: by modality, [D,H,W] in the orientation of `reorient`.
        spacing: voxel size in millimetres along the axes of `voxels`.
        grid: of the first file.
        warnings: what is doubtful; one sentence each, which names the file.
    """

    name: str
    files: dict[str, Path]
    voxels: dict[str, npt.NDArray[Any]]
    spacing: tuple[float, float, float]
    grid: RawGrid
    warnings: tuple[str, ...]

    @property
    def available(self) -> tuple[bool, ...]:
        """Whether there is a scan, for each of `MODALITIES`."""
        return tuple(modality in self.files for modality in MODALITIES)

    @property
    def missing(self) -> tuple[str, ...]:
        """The modalities without a scan."""
        return tuple(modality for modality in MODALITIES if modality not in self.files)


def read_scans(subject: Subject, dataset: Dataset) -> RawScans:
    """Reads and verifies scans, as a preparation for training does, and looks for what a network cannot cope with.

    Args:
        subject: its scans, one at least; a label is not looked at.
        dataset: what the networks were trained on; scans of another voxel size are no fault.

    Returns:
        The scans.

    Raises:
        VolumeError: a file cannot be read or is damaged.
        ScanError: the scans lie on different grids, hold no brain, are copies of each other or without a background.
    """
    files = {modality: subject.images[modality] for modality in MODALITIES if modality in subject.images}
    volumes: dict[str, Volume] = {}
    grid = None
    for modality, path in files.items():
        raw = read_volume(path)
        grid = grid or _grid_of(raw, path)
        volumes[modality] = reorient(raw)
    assert grid is not None
    faults = check_volumes(replace(subject, images=files, label=None), replace(dataset, spacing=None), volumes)
    errors = [fault for fault in faults if fault.severity == "error"]
    if errors:
        raise ScanError("\n".join(_line(subject, fault) for fault in errors))
    voxels = {modality: volume.voxels for modality, volume in volumes.items()}
    refuse_without_background(files, voxels)
    spacing = volumes[next(iter(files))].spacing
    warnings = [_line(subject, fault) for fault in faults] + find_doubts(files, voxels, spacing)
    return RawScans(subject.name, files, voxels, spacing, grid, tuple(warnings))


def _grid_of(volume: Volume, path: Path) -> RawGrid:
    x, y, z = volume.voxels.shape
    return RawGrid((x, y, z), volume.affine, volume.orientation, ".mha" if path.suffix == ".mha" else ".nii.gz")


def _line(subject: Subject, fault: Fault) -> str:
    return f"{fault.file or subject.name}: {fault.problem}; {fault.remedy}"
