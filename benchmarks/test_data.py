"""From volumes on disk to augmented batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from benchmarks.crop_files import make_crops
from benchmarks.measuring import Measure, Size
from benchmarks.results_table import PLAIN
from gss_train.data import TrainingCrops, augment

if TYPE_CHECKING:
    from benchmarks.baselines.loader import PlainFiles

_EDGE = {"full": 80, "small": 24}
_VOLUME = {"full": (136, 168, 136), "small": (48, 56, 48)}
_BATCH, _CROPS, _CATEGORIES = 2, 8, 4


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory, size: Size) -> TrainingCrops:
    """Random crops of prepared volumes on disk."""
    return make_crops(tmp_path_factory.mktemp("brats2020"), _EDGE[size], _VOLUME[size], _CROPS)


@pytest.fixture(scope="module")
def plain_files(tmp_path_factory: pytest.TempPathFactory, crops: TrainingCrops) -> list[PlainFiles]:
    """The same volumes as the plain loader wants them."""
    pytest.importorskip("scipy", reason="needs SciPy")
    from benchmarks.baselines.loader import PlainFiles  # noqa: PLC0415  (needs SciPy)

    folder = tmp_path_factory.mktemp("plain")
    files = [
        PlainFiles(folder / f"{subject.name}_vol.npy", folder / f"{subject.name}_seg.npy") for subject in crops.subjects
    ]
    for subject, (image, label) in zip(crops.subjects, files, strict=True):
        voxels = subject.open()
        np.save(image, voxels["image"].astype(np.float32))
        np.save(label, voxels["label"])
    return files


def _group(crops: TrainingCrops) -> str:
    return f"data, {_CROPS} crops of {crops.crop_size[0]}^3 in batches of {_BATCH}, files in the page cache"


def test_plain(measure: Measure, device: torch.device, crops: TrainingCrops, plain_files: list[PlainFiles]) -> None:
    from benchmarks.baselines.loader import plain_sample  # noqa: PLC0415  (needs SciPy)

    generator = np.random.default_rng(0)

    def read() -> None:
        for first in range(0, _CROPS, _BATCH):
            numbers = [index % len(plain_files) for index in range(first, first + _BATCH)]
            batch = [plain_sample(plain_files[number], crops.crop_size, _CATEGORIES, generator) for number in numbers]
            torch.stack([image for image, _ in batch]).to(device)
            torch.stack([label for _, label in batch]).to(device)

    # Memory: what NumPy holds would not be seen.
    measure(read, group=_group(crops), name=PLAIN, samples=_CROPS, memory=False)


@pytest.mark.parametrize("augmented", [False, True], ids=["read", "read + augment"])
def test_prepared(measure: Measure, device: torch.device, crops: TrainingCrops, augmented: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def read() -> None:
        for first in range(0, _CROPS, _BATCH):
            batch = [crops[index] for index in range(first, first + _BATCH)]
            image = torch.stack([crop["image"] for crop in batch]).to(device)
            label = torch.stack([crop["label"] for crop in batch]).to(device)
            if augmented:
                augment(image, label, generator)

    name = "read + augment" if augmented else "read"
    measure(read, group=_group(crops), name=name, samples=_CROPS, memory=False)
