"""Prepared volumes of noise on disk, to take crops from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from gss_train.data import TrainingCrops

_SUBJECTS = 2


def make_crops(folder: Path, edge: int, volume: tuple[int, int, int], length: int) -> TrainingCrops:
    """Random crops of prepared volumes; without the training dependencies the benchmark is skipped.

    Args:
        folder: that the volumes are written to.
        edge: voxels of a crop along each axis.
        volume: voxels of a volume.
        length: crops in an epoch.
    """
    pytest.importorskip("nibabel", reason="needs the training dependencies")
    from gss_train.data import DATASETS, TrainingCrops, find_subjects, prepare_dataset  # noqa: PLC0415  (as above)

    dataset = DATASETS["brats2020"]
    for number in range(_SUBJECTS):
        _write_raw_subject(folder / "raw" / f"BraTS20_Training_{number + 1:03}", volume, seed=number)
    subjects = find_subjects(folder / "raw", dataset)
    preparation = prepare_dataset(subjects, dataset, folder / "prepared", grown_size=(edge,) * 3, workers=1)
    return TrainingCrops(preparation.subjects, (edge, edge, edge), length=length, seed=0, tumour_share=0.5)


def _write_raw_subject(folder: Path, shape: tuple[int, int, int], seed: int) -> None:
    """A raw BraTS2020 subject of noise in an ellipsoid that fills the volume, as a brain does once it is cut out."""
    import nibabel  # noqa: PLC0415  (a training dependency)

    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    places = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij", sparse=True)
    brain = sum(place**2 for place in places) <= 1 + 1 / min(shape)
    volumes = {role: generator.integers(1, 1000, shape, np.int16) * brain for role in ("flair", "t1ce", "t1", "t2")}
    volumes["seg"] = generator.choice(np.array([0, 1, 2, 4], np.uint8), shape) * brain
    for role, voxels in volumes.items():
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1])), folder / f"{folder.name}_{role}.nii")
