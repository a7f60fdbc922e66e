from __future__ import annotations

from pathlib import Path

import pytest

from tests.gss_train.data.raw_files import make_head, write_subject
from tests.gss_train.inference.tiny import SPACING, export_tiny


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Folders of tiny subjects: NIfTI files as of BraTS2020, and the first as MetaImages, as of BraTS2015."""
    root = tmp_path_factory.mktemp("heads")
    folders = [root / "brats2020" / f"BraTS20_Training_{number:03}" for number in (1, 2)]
    older = root / "brats2015" / "HGG" / "brats_2013_pat0001_1"
    for number, folder in enumerate(folders):
        write_subject(folder, make_head((24, 24, 24), number), spacing=SPACING[0])
    write_subject(older, make_head((24, 24, 24), 0), ".mha", SPACING[0])
    return {"brats2020": folders, "brats2015": [older]}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exported networks, by data set; "other" is a second one of BraTS2020."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "brats2020": export_tiny(folder / "first.pt", "brats2020", seed=0),
        "other": export_tiny(folder / "second.pt", "brats2020", seed=1),
        "brats2015": export_tiny(folder / "third.pt", "brats2015", seed=2),
    }
