"""Real subjects, prepared, are what an independent reading of their files says."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gss_train.data import MODALITIES, Subject, TrainingCrops
from gss_train.data.grids import Grid
from gss_train.data.layouts import LayoutError
from gss_train.data.preparation import Preparation, prepare_dataset
from gss_train.data.prepared import PreparedSubject
from gss_train.data.resampling import most_probable, resample_label
from gss_train.data.volumes import read_volume, reorient
from tests.gss_train.data.prepared_files import padded_file
from tests.real_scans import DATASET, NOT_SET, each_subject, real_subjects, voxels_of

COARSE = (4.0, 4.0, 4.0)
REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}


def prepare(subject: Subject, folder: Path, spacing: tuple[float, float, float] | None = None) -> Preparation:
    grown = (128, 128, 128) if spacing is None else (32, 32, 32)
    return prepare_dataset([subject], DATASET, folder, grown, 1, None, spacing)


def whole(prepared: PreparedSubject) -> tuple[np.ndarray, np.ndarray]:
    """Image [4,D,H,W] and label [D,H,W] of the whole grid: what was cut off is background."""
    metadata = prepared.metadata
    image, label = prepared.crop((0, 0, 0), prepared.shape)
    box = tuple(slice(*ends) for ends in metadata.box)
    images = np.empty((4, *metadata.original_shape), np.float32)
    images[:] = np.array(metadata.background)[:, None, None, None]
    images[:, *box] = image
    labels = np.zeros(metadata.original_shape, np.uint8)
    labels[box] = label
    return images, labels


@each_subject
def test_every_voxel_is_as_read_independently(subject: Subject, tmp_path: Path) -> None:
    preparation = prepare(subject, tmp_path)
    assert not preparation.left_out
    assert not preparation.warnings
    (prepared,) = preparation.subjects
    images, label = whole(prepared)
    raw = np.stack([voxels_of(subject.images[modality]) for modality in MODALITIES]).astype(np.float64)
    brain = raw.sum(0) > 0
    for scan, image in zip(raw, images, strict=True):
        expected = (scan - scan[brain].mean()) / scan[brain].std()
        # Half precision.
        np.testing.assert_allclose(image, expected, rtol=2**-10, atol=2**-10)
    values = np.array(DATASET.label_values)[label]
    truth = voxels_of(subject.label)
    np.testing.assert_array_equal(values, truth)
    assert prepared.metadata.truth is None
    lengths = [stop - start for start, stop in prepared.metadata.box]
    assert min(lengths) >= 128
    occupied = (raw != 0).any(0)
    box = tuple(slice(*ends) for ends in prepared.metadata.box)
    assert np.count_nonzero(occupied[box]) == np.count_nonzero(occupied)


@each_subject
def test_coarse_voxels_hold_the_same_brain_and_tumour(subject: Subject, tmp_path: Path) -> None:
    (prepared,) = prepare(subject, tmp_path, COARSE).subjects
    metadata = prepared.metadata
    images, label = whole(prepared)
    np.testing.assert_allclose(metadata.spacing, COARSE)
    truth = voxels_of(subject.label)
    np.testing.assert_array_equal(np.array(DATASET.label_values)[prepared.truth()], truth)
    coarse = np.array(DATASET.label_values)[label]
    for values in (REGIONS["WT"], REGIONS["TC"]):
        raw, small = np.isin(truth, values), np.isin(coarse, values)
        if raw.sum() < 8000:  # of less than 8 ml, coarse voxels are a bad likeness
            continue
        assert small.sum() * 64 == pytest.approx(raw.sum(), rel=0.1)
        # Where they lie in the world, by the label's file itself, to half a voxel: what is thin is lost.
        file = nib.load(subject.label)
        expected = nib.affines.apply_affine(file.affine, middle(np.isin(np.asarray(file.dataobj), values)))
        for grid, mask, error in ((metadata.truth.grid, raw, 1e-3), (whole_grid(prepared), small, 2)):
            np.testing.assert_allclose(nib.affines.apply_affine(grid.affine, middle(mask)), expected, atol=error)
    for modality, image in zip(MODALITIES, images, strict=True):
        raw = voxels_of(subject.images[modality]).astype(np.float64)
        number = MODALITIES.index(modality)
        values = image * metadata.std[number] + metadata.mean[number]
        brain = values > metadata.std[number] / 100
        # The mean over the brain stays, and its volume: half filled voxels count as much as they hold.
        assert np.count_nonzero(brain) * 64 == pytest.approx(np.count_nonzero(raw), rel=0.05)
        assert values[brain].mean() == pytest.approx(raw[raw != 0].mean(), rel=0.03)


@each_subject
def test_crops_are_those_of_the_volume_padded_before(subject: Subject, tmp_path: Path) -> None:
    (prepared,) = prepare(subject, tmp_path / "out").subjects
    for crop_size in ((80, 80, 80), (112, 112, 112), (128, 128, 128), (96, 144, 176)):
        padded = padded_file(prepared, crop_size, tmp_path / "padded")
        plain, expected = (TrainingCrops([each], crop_size, 6, seed=1, tumour_share=0.5) for each in (prepared, padded))
        for index in range(6):
            for key, value in expected[index].items():
                np.testing.assert_array_equal(plain[index][key], value)


def middle(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(0)


def whole_grid(prepared: PreparedSubject) -> Grid:
    return Grid(prepared.metadata.original_shape, np.array(prepared.metadata.affine))


def there_and_back(subject: Subject, spacing: float) -> list[float]:
    """Dice of each region of a label with what other voxels make of it."""
    label = reorient(read_volume(subject.label))
    coarse = label.grid.with_spacing((spacing,) * 3)
    brought = resample_label(label.voxels, label.grid, coarse)
    shares = np.stack([brought == value for value in DATASET.label_values]).astype(np.float32)
    found = np.array(DATASET.label_values)[most_probable(shares, coarse, label.grid)]
    pairs = [(np.isin(found, values), np.isin(label.voxels, values)) for values in REGIONS.values()]
    return [2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)) for a, b in pairs]


@pytest.mark.exhaustive
def test_labels_come_back_from_larger_voxels(capsys: pytest.CaptureFixture[str]) -> None:
    """The most that a network can reach there: the table of docs/training.md."""
    subjects = real_subjects() or pytest.skip(NOT_SET)
    means = [np.mean([there_and_back(subject, spacing) for subject in subjects], axis=0) for spacing in (2, 3, 4)]
    with capsys.disabled():
        for spacing, dice in zip((2, 3, 4), means, strict=True):
            print(f"\n{spacing} mm: " + ", ".join(f"{r} {100 * d:.1f} %" for r, d in zip(REGIONS, dice, strict=True)))
    # Fine structures lose most.
    for finer, coarser in itertools.pairwise(means):
        assert (finer > coarser).all()
    assert all(dice[0] > dice[1] > dice[2] for dice in means)


def test_a_folder_without_subjects_is_no_reason_to_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for named in (tmp_path, tmp_path / "missing"):
        monkeypatch.setenv("GSS_REAL_SCANS", str(named))
        with pytest.raises(LayoutError, match=str(named)):
            real_subjects()
