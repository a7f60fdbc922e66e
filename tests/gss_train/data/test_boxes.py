"""What a crop or a window larger than the prepared volume sees: as if the whole volume had been padded before."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gss_train.data.boxes import read_box
from gss_train.data.crops import TrainingCrops
from gss_train.data.datasets import MODALITIES, Dataset, Subject
from gss_train.data.layouts import find_subjects
from gss_train.data.prepared import VOXEL_DTYPE, PreparedSubject
from tests.gss_train.data.prepared_files import padded_file, prepare_subject
from tests.gss_train.data.raw_files import make_raw, write_subject

SHAPE = (14, 13, 12)


def subject_with(folder: Path, dataset: Dataset, box: tuple[tuple[int, int], ...], missing: str = "") -> Subject:
    write_subject(folder / "raw" / "BraTS20_Training_001", make_raw(SHAPE, box))
    (subject,) = find_subjects(folder / "raw", dataset)
    return replace(subject, images={name: path for name, path in subject.images.items() if name != missing})


def where(box: tuple[int, int], length: int, size: int, grown: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """One axis of a volume that is made for one size: the box grown to it, and what is missing on both sides."""
    start, stop = box
    most = max(size, grown)
    if stop - start < most:
        start = max(0, min(start - (most - (stop - start)) // 2, length - most))
        stop = min(start + most, length)
    missing = max(0, size - (stop - start))
    return (start, stop), (missing // 2, missing - missing // 2)


@pytest.mark.parametrize("missing", ["", "T1ce", "T2"])
@pytest.mark.parametrize(
    ("size", "grown"),
    [
        # Nothing is missing, on some axes more than the whole volume has, on all.
        ((7, 7, 5), (1, 1, 1)),
        ((8, 9, 11), (12, 12, 12)),
        ((17, 6, 15), (10, 10, 10)),
        ((16, 16, 17), (128, 128, 128)),
        # The box grows to a crop that is larger than it, and is moved where the volume ends.
        ((12, 11, 10), (1, 1, 1)),
        ((13, 30, 7), (1, 1, 1)),
    ],
)
@pytest.mark.parametrize("brain", [((3, 11), (2, 10), (4, 9)), ((0, 8), (5, 13), (6, 12))])
def test_a_padded_subject_is_the_whole_volume_padded(
    tmp_path: Path,
    brats2020: Dataset,
    brain: tuple[tuple[int, int], ...],
    size: tuple[int, int, int],
    grown: tuple[int, int, int],
    missing: str,
) -> None:
    prepared = prepare_subject(subject_with(tmp_path, brats2020, brain, missing), brats2020, tmp_path / "out", grown)
    # The whole volume, of which all but the file is background.
    file = np.load(prepared.path)
    whole = np.zeros(SHAPE, VOXEL_DTYPE)
    whole["image"] = prepared.background
    whole[tuple(slice(*ends) for ends in prepared.metadata.box)] = file
    boxes, padding = zip(*map(where, brain, SHAPE, size, grown), strict=True)
    kept = whole[tuple(slice(*ends) for ends in boxes)]
    images = [
        np.pad(kept["image"][..., number], padding, constant_values=np.float16(background))
        for number, background in enumerate(prepared.background)
    ]
    label = np.pad(kept["label"], padding)

    seen = prepared.padded_to(size)
    assert seen.shape == label.shape
    image, found = seen.crop((0, 0, 0), seen.shape)
    np.testing.assert_array_equal(image, images)
    np.testing.assert_array_equal(found, label)
    np.testing.assert_array_equal(seen.tumour_voxels, np.argwhere(label))
    first = [start - before for (start, _), (before, _) in zip(boxes, padding, strict=True)]
    np.testing.assert_allclose(seen.grid.affine[:, 3], np.array(prepared.metadata.affine) @ [*first, 1])
    if missing:
        np.testing.assert_array_equal(image[MODALITIES.index(missing)], 0)
    # A part of it, and what it is seen as for another size.
    start, length = (seen.shape[0] // 3, 0, 1), (seen.shape[0] // 2, seen.shape[1], seen.shape[2] - 1)
    part = tuple(slice(s, s + n) for s, n in zip(start, length, strict=True))
    np.testing.assert_array_equal(seen.crop(start, length)[0], np.array(images)[:, *part])
    np.testing.assert_array_equal(seen.crop(start, length)[1], label[part])
    assert seen.padded_to((1, 1, 1)) == prepared


@pytest.mark.parametrize("tumour_share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("crop_size", [(8, 8, 8), (9, 16, 11), (20, 18, 21)])
def test_crops_are_those_of_padded_files(
    tmp_path: Path, prepared_subjects: list[PreparedSubject], crop_size: tuple[int, int, int], tumour_share: float
) -> None:
    files = [padded_file(subject, crop_size, tmp_path) for subject in prepared_subjects]
    padded, plain = (
        TrainingCrops(subjects, crop_size, length=15, seed=4, tumour_share=tumour_share)
        for subjects in (files, prepared_subjects)
    )
    for index in range(15):
        for key, value in padded[index].items():
            np.testing.assert_array_equal(plain[index][key], value)


@pytest.mark.parametrize("start", [(-5, 0, 0), (0, 4, 1), (-9, 7, 30), (4, -3, -2)])
def test_a_box_may_lie_anywhere(start: tuple[int, int, int]) -> None:
    generator = np.random.default_rng(0)
    voxels = np.zeros((6, 5, 4), VOXEL_DTYPE)
    voxels["image"], voxels["label"] = generator.normal(size=(6, 5, 4, 4)), generator.integers(1, 4, (6, 5, 4))
    background = (-1.5, 0.0, -0.25, -2.0)
    image, label = read_box(voxels, start, (5, 6, 7), background)
    far = np.full((4, 60, 60, 60), np.reshape(background, (4, 1, 1, 1)), np.float16)
    far[:, 20:26, 20:25, 20:24] = np.moveaxis(voxels["image"], -1, 0)
    labels = np.pad(voxels["label"], ((20, 34), (20, 35), (20, 36)))
    box = tuple(slice(20 + s, 20 + s + n) for s, n in zip(start, (5, 6, 7), strict=True))
    np.testing.assert_array_equal(image, far[:, *box])
    np.testing.assert_array_equal(label, labels[box])
    assert image.flags.c_contiguous
    assert label.flags.c_contiguous


def test_a_padded_crop_allocates_its_own_voxels_alone(tmp_path: Path, prepared_subjects: list[PreparedSubject]) -> None:
    shape, size = (136, 168, 136), (8, 8, 200)
    path = tmp_path / "large.npy"
    # A hole instead of voxels.
    np.lib.format.open_memmap(path, "w+", VOXEL_DTYPE, shape).flush()
    metadata = replace(prepared_subjects[0].metadata, box=tuple((0, length) for length in shape))
    subject = replace(prepared_subjects[0], path=path, metadata=metadata).padded_to(size)
    assert subject.shape == (136, 168, 200)
    tracemalloc.start()
    try:
        subject.crop((50, 60, 0), size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * np.prod(size) * VOXEL_DTYPE.itemsize + 100_000 < np.prod(shape) * VOXEL_DTYPE.itemsize / 50
