from __future__ import annotations

from pathlib import Path

import pytest

from gss_train.data.datasets import DATASETS, Dataset, Subject
from gss_train.data.layouts import find_subjects
from gss_train.data.preparation import prepare_dataset
from gss_train.data.prepared import PreparedSubject
from tests.gss_train.data.raw_files import Raw, make_raw, write_subject


@pytest.fixture
def brats2020() -> Dataset:
    return DATASETS["brats2020"]


@pytest.fixture
def raw_subject(tmp_path: Path, brats2020: Dataset) -> tuple[Subject, Raw]:
    raw = make_raw()
    write_subject(tmp_path / "raw" / "BraTS20_Training_001", raw)
    return find_subjects(tmp_path / "raw", brats2020)[0], raw


@pytest.fixture(scope="session")
def prepared_subjects(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedSubject]:
    """Five prepared subjects of different sizes."""
    root = tmp_path_factory.mktemp("five")
    for number in range(1, 6):
        box = ((2, 12 + number), (1, 12), (3, 14))
        write_subject(root / "raw" / f"BraTS20_Training_{number:03}", make_raw((20, 16, 18), box, seed=number), ".nii")
    dataset = DATASETS["brats2020"]
    subjects = find_subjects(root / "raw", dataset)
    return prepare_dataset(subjects, dataset, root / "prepared", (8, 8, 8), workers=1).subjects
