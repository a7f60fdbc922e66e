"""Prepared subjects at half the resolution, packed and unpacked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.train.made_up import make_up_subjects
from benchmarks.train.packed import halve, main
from gss_train.data.prepared import VOXEL_DTYPE, load_prepared


def test_a_voxel_is_the_mean_and_the_majority_of_eight() -> None:
    voxels = np.zeros((2, 2, 3), VOXEL_DTYPE)
    voxels["image"][..., 0] = np.arange(12).reshape(2, 2, 3)
    voxels["image"][..., 3] = 2.5
    voxels["label"][:, :, 1] = 3
    voxels["label"][0, 0, 0] = 3
    voxels["label"][..., 2] = [[1, 1], [1, 2]]
    halved = halve(voxels, categories=4)
    assert halved.shape == (1, 1, 2)
    assert halved["image"][0, 0, :, 0].tolist() == [5.0, 6.5]  # the odd plane is there twice
    assert halved["image"][0, 0, :, 3].tolist() == [2.5, 2.5]
    assert halved["label"].tolist() == [[[3, 1]]]


def test_what_is_packed_is_halved_and_nameless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared, packed, unpacked = tmp_path / "prepared", tmp_path / "packed", tmp_path / "unpacked"
    make_up_subjects(prepared, 3, (16, 18, 21))
    assert main(["pack", str(prepared), str(packed)]) == 0
    assert main(["unpack", str(packed), str(unpacked)]) == 0
    assert "3 subjects" in capsys.readouterr().out
    for before, after in zip(load_prepared(prepared), load_prepared(unpacked), strict=True):
        assert np.array_equal(after.open(), halve(before.open(), 4))
        assert after.shape == (8, 9, 11)
        assert after.metadata.spacing == (2, 2, 2)
        assert after.background == before.background
        assert all(after.open()["label"][tuple(voxel)] for voxel in after.tumour_voxels)
        assert len(after.tumour_voxels) == np.count_nonzero(after.open()["label"])
    files = [*packed.iterdir(), *unpacked.iterdir()]
    assert len(files) == 9
    for file in files:
        assert "made-up" not in file.name
        assert b"made-up" not in file.read_bytes()


@pytest.mark.parametrize("what", ["pack", "unpack"])
def test_an_empty_folder_is_an_error(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([what, str(tmp_path), str(tmp_path / "target")]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "target").exists()


def test_damaged_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "subject-001.npz").write_bytes(b"PK broken")
    assert main(["unpack", str(tmp_path), str(tmp_path / "target")]) == 2
    assert "subject-001.npz" in capsys.readouterr().err
