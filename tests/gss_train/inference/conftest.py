from __future__ import annotations

from pathlib import Path

import pytest

from gss_train.phantom import generate_phantoms
from tests.gss_train.data.raw_files import MHA_INFIXES, write_mha
from tests.gss_train.inference.tiny import SPACING, export_tiny, scan_files, voxels_of


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Folders of tiny subjects: NIfTI files as of BraTS2020, and the first as MetaImages, as of BraTS2015."""
    root = tmp_path_factory.mktemp("phantoms")
    folders = generate_phantoms("brats2020", root / "brats2020", 2, 3, (24, 24, 24), 1)
    older = root / "brats2015" / "HGG" / "brats_2013_pat0001_1"
    for modality, path in scan_files(folders[0]).items():
        part = f"VSD.Brain.XX.O.{MHA_INFIXES[modality]}.54500"
        write_mha(older / part / f"{part}.mha", voxels_of(path), SPACING)
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
