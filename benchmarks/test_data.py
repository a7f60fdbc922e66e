"""From prepared volumes on disk to augmented batches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from benchmarks.measuring import Measure, Size

if TYPE_CHECKING:
    from gss_train.data import TrainingCrops

_EDGE = {"full": 80 if torch.cuda.is_available() else 48, "small": 24}
_VOLUME = {"full": (136, 168, 136), "small": (48, 56, 48)}
_SUBJECTS, _BATCH, _CROPS = 2, 2, 8


def _write_raw_subject(folder: Path, shape: tuple[int, int, int], seed: int) -> None:
    """A raw BraTS2020 subject of noise, as large as a brain is once it is cut out."""
    import nibabel  # noqa: PLC0415  (a training dependency)

    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    volumes = {role: generator.integers(1, 1000, shape, np.int16) for role in ("flair", "t1ce", "t1", "t2")}
    volumes["seg"] = generator.choice(np.array([0, 1, 2, 4], np.uint8), shape)
    for role, voxels in volumes.items():
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1])), folder / f"{folder.name}_{role}.nii")


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory, size: Size) -> TrainingCrops:
    """Random crops of prepared volumes on disk."""
    pytest.importorskip("gss_train.data", reason="needs the training dependencies", exc_type=ImportError)
    from gss_train.data import DATASETS, TrainingCrops, find_subjects, prepare_dataset  # noqa: PLC0415  (as above)

    folder, dataset, edge = tmp_path_factory.mktemp("brats2020"), DATASETS["brats2020"], _EDGE[size]
    for number in range(_SUBJECTS):
        _write_raw_subject(folder / "raw" / f"BraTS20_Training_{number + 1:03}", _VOLUME[size], seed=number)
    subjects = prepare_dataset(
        find_subjects(folder / "raw", dataset), dataset, folder / "prepared", minimum_size=(edge,) * 3, workers=1
    )
    return TrainingCrops(subjects, (edge, edge, edge), length=_CROPS, seed=0, tumour_share=0.5)


@pytest.mark.parametrize("augmented", [False, True], ids=["read", "read + augment"])
def test_data(measure: Measure, device: torch.device, crops: TrainingCrops, augmented: bool) -> None:
    from gss_train.data import augment  # noqa: PLC0415  (needs the training dependencies)

    generator = torch.Generator().manual_seed(0)

    def read() -> None:
        for first in range(0, _CROPS, _BATCH):
            batch = [crops[index] for index in range(first, first + _BATCH)]
            image = torch.stack([crop["image"] for crop in batch]).to(device)
            label = torch.stack([crop["label"] for crop in batch]).to(device)
            if augmented:
                augment(image, label, generator)

    measure(
        read,
        group=f"data, {_CROPS} crops of {crops.crop_size[0]}^3 in batches of {_BATCH}, files in the page cache",
        name="read + augment" if augmented else "read",
        samples=_CROPS,
    )
