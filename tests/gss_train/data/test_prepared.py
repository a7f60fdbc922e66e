from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gss_train.data.prepared import PreparedError, PreparedSubject, load_prepared, read_prepared


@pytest.mark.parametrize("start", [(0, 0, 0), (2, 1, 3)])
@pytest.mark.parametrize("size", [(1, 1, 1), (6, 5, 4)])
def test_a_crop_equals_slices_of_the_whole(
    prepared_subjects: list[PreparedSubject], start: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    subject = prepared_subjects[0]
    whole = np.load(subject.path)
    image, label = subject.crop(start, size)
    (x, y, z), (d, h, w) = start, size
    part = whole[x : x + d, y : y + h, z : z + w]
    np.testing.assert_array_equal(image, part["image"].transpose(3, 0, 1, 2))
    np.testing.assert_array_equal(label, part["label"])
    assert (image.dtype, label.dtype) == (np.float16, np.uint8)
    assert image.flags.c_contiguous
    assert label.flags.c_contiguous
    assert image.flags.writeable


@pytest.mark.parametrize(("start", "size"), [((-1, 0, 0), (4, 4, 4)), ((0, 0, 0), (4, 4, 99)), ((0, 0, 0), (0, 4, 4))])
def test_a_crop_outside_the_volume_is_refused(
    prepared_subjects: list[PreparedSubject], start: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    with pytest.raises(ValueError, match="reaches outside BraTS20_Training_001"):
        prepared_subjects[0].crop(start, size)


def test_open_maps_the_file_read_only(prepared_subjects: list[PreparedSubject]) -> None:
    voxels = prepared_subjects[0].open()
    assert isinstance(voxels, np.memmap)
    assert voxels.shape == prepared_subjects[0].shape
    with pytest.raises(ValueError, match="read-only"):
        voxels["label"][0, 0, 0] = 1


def test_loading_finds_all_subjects_by_name(prepared_subjects: list[PreparedSubject]) -> None:
    loaded = load_prepared(prepared_subjects[0].path.parent)
    assert loaded == prepared_subjects
    assert [s.name for s in loaded] == sorted(s.name for s in loaded)
    np.testing.assert_array_equal(loaded[2].tumour_voxels, prepared_subjects[2].tumour_voxels)


def test_loading_from_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreparedError, match="no such folder"):
        load_prepared(tmp_path / "nowhere")
    assert load_prepared(tmp_path) == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"sources": {}, "settings": {}}'])
def test_a_damaged_description_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.npy").write_bytes(b"")
    (tmp_path / "one.json").write_text(text)
    with pytest.raises(PreparedError, match=r"one\.json: cannot be read"):
        read_prepared(tmp_path / "one.npy")


def test_voxels_that_do_not_fit_their_description_are_named(
    tmp_path: Path, prepared_subjects: list[PreparedSubject]
) -> None:
    subject = replace(prepared_subjects[0], path=tmp_path / "other.npy")
    with pytest.raises(PreparedError, match=r"other\.npy: cannot be read"):
        subject.open()
    np.save(subject.path, np.zeros((3, 3, 3), np.float32))
    with pytest.raises(PreparedError, match=r"other\.npy: holds float32 of shape \(3, 3, 3\), should hold"):
        subject.open()
    np.save(subject.path, np.array([{"an": "object"}]), allow_pickle=True)
    with pytest.raises(PreparedError, match=r"other\.npy: cannot be read"):
        subject.open()
