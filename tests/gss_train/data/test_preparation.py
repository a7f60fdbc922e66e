from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from scipy import ndimage

from gss_train.data.boxes import padding_to
from gss_train.data.datasets import DATASETS, MODALITIES, Dataset, Subject
from gss_train.data.layouts import find_subjects
from gss_train.data.normalisation import normalise_scans
from gss_train.data.preparation import Preparation, PreparationError, prepare_dataset
from gss_train.data.prepared import VOXEL_DTYPE, PreparedError, PreparedSubject, load_prepared
from gss_train.data.volumes import read_volume, reorient
from tests.gss_train.data.prepared_files import prepare_subject
from tests.gss_train.data.raw_files import RAS_AFFINE, Raw, make_head, make_raw, write_nifti, write_subject


def write_and_find(root: Path, raw: Raw, name: str = "BraTS20_Training_001") -> Subject:
    write_subject(root / name, raw)
    return next(s for s in find_subjects(root, DATASETS["brats2020"]) if s.name == name)


def expected_volume(raw: Raw, box: tuple[slice, ...], label_values: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The protocol, step by step in double precision, over the raw voxels in `box`."""
    stack = np.stack([raw.images[modality].astype(np.float64) for modality in MODALITIES])
    brain = stack.sum(0) > 0
    scores = np.stack([(scan - np.mean(scan[brain])) / np.std(scan[brain]) for scan in stack])
    categories = np.vectorize(label_values.index)(raw.label)
    return scores[(slice(None), *box)], categories[box]


def whole(prepared: PreparedSubject) -> tuple[np.ndarray, np.ndarray]:
    return prepared.crop((0, 0, 0), prepared.shape)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_equals_a_plain_recomputation_over_the_brain_box(tmp_path: Path, brats2020: Dataset, ending: str) -> None:
    raw = make_raw(box=((3, 11), (2, 10), (4, 9)))
    write_subject(tmp_path / "raw" / "BraTS20_Training_001", raw, ending)
    prepared = prepare_subject(find_subjects(tmp_path, brats2020)[0], brats2020, tmp_path / "out", (1, 1, 1))
    image, label = whole(prepared)
    box = (slice(3, 11), slice(2, 10), slice(4, 9))
    scores, categories = expected_volume(raw, box, brats2020.label_values)
    np.testing.assert_allclose(image, scores, rtol=2**-10, atol=1e-4)
    np.testing.assert_array_equal(label, categories)
    assert set(np.unique(label)) == {0, 1, 2, 3}
    assert prepared.metadata.box == ((3, 11), (2, 10), (4, 9))
    assert prepared.metadata.original_shape == (14, 13, 12)


def test_brats2015_from_metaimages_with_its_five_categories(tmp_path: Path) -> None:
    dataset = DATASETS["brats2015"]
    raw = make_raw(label_values=dataset.label_values)
    write_subject(tmp_path / "raw" / "HGG" / "brats_tcia_pat105_0001", raw, ".mha")
    prepared = prepare_subject(find_subjects(tmp_path, dataset)[0], dataset, tmp_path / "out", (1, 1, 1))
    image, label = whole(prepared)
    scores, categories = expected_volume(raw, (slice(3, 11), slice(2, 10), slice(4, 9)), dataset.label_values)
    np.testing.assert_allclose(image, scores, rtol=2**-10, atol=1e-4)
    np.testing.assert_array_equal(label, categories)
    assert prepared.metadata.grade == "HGG"


def test_background_is_minus_mean_over_std(
    tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset
) -> None:
    subject, raw = raw_subject
    prepared = prepare_subject(subject, brats2020, tmp_path / "out", (12, 12, 12))
    brain = sum(raw.images.values()) > 0
    expected = [-raw.images[m][brain].mean() / raw.images[m][brain].std() for m in MODALITIES]
    np.testing.assert_allclose(prepared.background, expected, rtol=1e-5)
    image, _ = whole(prepared)
    corner = image[:, 0, 0, 0]
    np.testing.assert_array_equal(corner, np.float16(prepared.background))
    assert np.all(corner < 0)


@pytest.mark.parametrize(
    ("brain", "least", "expected"),
    [
        ((3, 9), 6, (3, 9)),
        ((3, 9), 4, (3, 9)),
        ((4, 8), 8, (2, 10)),
        ((4, 8), 7, (3, 10)),
        ((0, 4), 8, (0, 8)),
        ((10, 14), 8, (6, 14)),
        ((4, 8), 14, (0, 14)),
    ],
)
def test_box_grows_on_both_sides_within_the_volume(
    tmp_path: Path, brats2020: Dataset, brain: tuple[int, int], least: int, expected: tuple[int, int]
) -> None:
    subject = write_and_find(tmp_path / "raw", make_raw((14, 12, 12), (brain, (2, 10), (2, 10))))
    prepared = prepare_subject(subject, brats2020, tmp_path / "out", (least, 1, 1))
    assert prepared.metadata.box[0] == expected
    assert prepared.shape[0] == expected[1] - expected[0]


@pytest.mark.parametrize(
    ("brain", "least", "expected"),
    [
        # The last plane of the brain is not in the box.
        ((3, 9), 4, (3, 8)),
        ((3, 9), 5, (3, 8)),
        # Grown to `least`, or by one voxel more; shifted where the volume begins, cut where it ends.
        ((4, 8), 6, (3, 9)),
        ((4, 8), 7, (2, 10)),
        ((0, 4), 8, (0, 8)),
        ((10, 14), 8, (8, 14)),
    ],
)
def test_the_box_of_the_public_preparation(
    tmp_path: Path, brats2020: Dataset, brain: tuple[int, int], least: int, expected: tuple[int, int]
) -> None:
    raw = make_raw((14, 12, 12), (brain, (2, 10), (2, 10)))
    subject = write_and_find(tmp_path / "raw", raw)
    prepared = prepare_subject(subject, brats2020, tmp_path / "out", (least, 1, 1), released_box=True)
    assert prepared.metadata.box == (expected, (2, 9), (2, 9))
    box = tuple(slice(*ends) for ends in prepared.metadata.box)
    # Mean and deviation are those of the brain in the box.
    inside = Raw({modality: scan[box] for modality, scan in raw.images.items()}, raw.label[box])
    scores, categories = expected_volume(inside, (slice(None),) * 3, brats2020.label_values)
    image, label = whole(prepared)
    np.testing.assert_allclose(image, scores, rtol=2**-10, atol=1e-4)
    np.testing.assert_array_equal(label, categories)


def test_description_tells_where_everything_comes_from(
    tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset
) -> None:
    subject, raw = raw_subject
    prepared = prepare_subject(subject, brats2020, tmp_path / "out", (4, 4, 4))
    text = json.loads((tmp_path / "out" / "BraTS20_Training_001.json").read_text())
    assert text["name"] == "BraTS20_Training_001"
    assert text["grade"] is None
    assert text["spacing"] == [1, 1, 1]
    np.testing.assert_allclose(text["affine"], RAS_AFFINE)
    assert text["settings"]["grown_size"] == [4, 4, 4]
    assert set(text["sources"]) == {*MODALITIES, "label"}
    for modality in MODALITIES:
        stat = subject.images[modality].stat()
        source = text["sources"][modality]
        assert (source["size"], source["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)
    brain = sum(raw.images.values()) > 0
    np.testing.assert_allclose(text["mean"], [raw.images[m][brain].mean() for m in MODALITIES], rtol=1e-6)
    np.testing.assert_allclose(text["std"], [raw.images[m][brain].std() for m in MODALITIES], rtol=1e-6)
    assert load_prepared(tmp_path / "out")[0].metadata == prepared.metadata


def test_file_is_a_memory_mappable_array_of_voxels(
    tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset
) -> None:
    prepared = prepare_subject(raw_subject[0], brats2020, tmp_path / "out", (4, 4, 4))
    voxels = np.load(tmp_path / "out" / "BraTS20_Training_001.npy", mmap_mode="r", allow_pickle=False)
    assert voxels.dtype == np.dtype([("image", "<f2", (4,)), ("label", "u1")]) == VOXEL_DTYPE
    assert voxels.shape == prepared.shape
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "BraTS20_Training_001.json",
        "BraTS20_Training_001.npy",
        "index.jsonl",
    ]


def test_tumour_voxels_are_drawn_from_the_tumour(tmp_path: Path, brats2020: Dataset) -> None:
    box = ((1, 19), (1, 19), (1, 19))
    subject = write_and_find(tmp_path / "raw", make_raw((20, 20, 20), box))
    prepared = prepare_subject(subject, brats2020, tmp_path / "out", (8, 8, 8))
    again = prepare_subject(subject, brats2020, tmp_path / "again", (8, 8, 8))
    _, label = whole(prepared)
    assert np.count_nonzero(label) > 1024
    assert prepared.tumour_voxels.shape == (1024, 3)
    assert len(np.unique(prepared.tumour_voxels, axis=0)) == 1024
    assert np.all(label[tuple(prepared.tumour_voxels.T)] > 0)
    np.testing.assert_array_equal(prepared.tumour_voxels, again.tumour_voxels)


def test_few_tumour_voxels_are_all_listed(tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset) -> None:
    prepared = prepare_subject(raw_subject[0], brats2020, tmp_path / "out", (16, 16, 16)).padded_to((20, 20, 20))
    _, label = whole(prepared)
    np.testing.assert_array_equal(prepared.tumour_voxels, np.argwhere(label))


def test_a_subject_without_label_is_all_background(
    tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset
) -> None:
    prepared = prepare_subject(replace(raw_subject[0], label=None), brats2020, tmp_path / "out", (4, 4, 4))
    assert not whole(prepared)[1].any()
    assert prepared.tumour_voxels.shape == (0, 3)
    assert not prepared.has_label
    assert "label" not in prepared.metadata.sources


@pytest.mark.parametrize("present", [("FLAIR", "T2"), ("T1ce",), ("T1ce", "T1", "T2")])
def test_missing_scans_are_0_and_count_for_nothing(
    tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset, present: tuple[str, ...]
) -> None:
    subject, raw = raw_subject
    partial = replace(subject, images={modality: subject.images[modality] for modality in present})
    prepared = prepare_subject(partial, brats2020, tmp_path / "out", (17, 13, 16))
    assert prepared.metadata.box == ((0, 14), (0, 13), (0, 12))
    image, label = whole(prepared)
    assert prepared.available == tuple(modality in present for modality in MODALITIES)
    brain = sum(raw.images[modality].astype(np.float64) for modality in present) > 0
    for number, modality in enumerate(MODALITIES):
        if modality in present:
            scan = raw.images[modality].astype(np.float64)
            scores = (scan - scan[brain].mean()) / scan[brain].std()
            np.testing.assert_allclose(image[number], scores, rtol=2**-10, atol=1e-4)
            np.testing.assert_array_equal(image[number][0, 0, 0], np.float16(prepared.background[number]))
        else:
            np.testing.assert_array_equal(image[number].view(np.uint16), 0)
            assert prepared.background[number] == 0
    np.testing.assert_array_equal(label, np.vectorize(brats2020.label_values.index)(raw.label))


def test_files_of_any_orientation_give_the_same_voxels(
    tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset
) -> None:
    subject, raw = raw_subject
    expected = prepare_subject(subject, brats2020, tmp_path / "out", (4, 4, 4))
    assert expected.metadata.orientation == "LPS"
    # The same head, stored with axes that point to the front, to the right and down.
    x, y, z = np.subtract(raw.label.shape, 1)
    turn = np.array([[0.0, -1, 0, x], [-1, 0, 0, y], [0, 0, -1, z], [0, 0, 0, 1]])
    for role, voxels in [*raw.images.items(), ("label", raw.label)]:
        path = subject.label if role == "label" else subject.images[role]
        write_nifti(path, voxels.transpose(1, 0, 2)[::-1, ::-1, ::-1], RAS_AFFINE @ turn)
    turned = prepare_subject(subject, brats2020, tmp_path / "turned", (4, 4, 4))
    assert turned.metadata.orientation == "ARI"
    for prepared, again in zip(whole(expected), whole(turned), strict=True):
        np.testing.assert_array_equal(again, prepared)
    np.testing.assert_allclose(turned.metadata.affine, expected.metadata.affine)
    assert (turned.metadata.box, turned.metadata.digests) == (expected.metadata.box, expected.metadata.digests)


def test_half_precision_keeps_every_grey_value(tmp_path: Path, brats2020: Dataset) -> None:
    """The integers of a scan can be read off the stored z-scores again: rounding is finer than the scanner."""
    raw = make_head((48, 44, 40))
    subject = write_and_find(tmp_path / "raw", raw)
    prepared = prepare_subject(subject, brats2020, tmp_path / "out", (4, 4, 4))
    image = whole(prepared)[0].astype(np.float64)
    box = tuple(slice(first, last) for first, last in prepared.metadata.box)
    for number, modality in enumerate(MODALITIES):
        scan = raw.images[modality][box]
        mean, std = prepared.metadata.mean[number], prepared.metadata.std[number]
        np.testing.assert_array_equal(np.rint(image[number] * std + mean), scan)
        exact = (scan - mean) / std
        error = np.abs(image[number] - exact)
        assert np.all(error <= 2**-11 * np.abs(exact) + 1e-6)
        assert np.sqrt(np.mean(error[scan != 0] ** 2)) < 1e-3


def modification_times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_up_to_date_results_are_kept(tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset) -> None:
    first = prepare_subject(raw_subject[0], brats2020, tmp_path / "out", (4, 4, 4))
    times = modification_times(tmp_path / "out")
    assert prepare_subject(raw_subject[0], brats2020, tmp_path / "out", (4, 4, 4)) == first
    assert modification_times(tmp_path / "out") == times


def test_other_settings_or_changed_files_are_prepared_again(
    tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset
) -> None:
    subject, raw = raw_subject
    prepare_subject(subject, brats2020, tmp_path / "out", (4, 4, 4))
    assert prepare_subject(subject, brats2020, tmp_path / "out", (14, 4, 4)).shape[0] == 14
    raw.images["T2"][5, 5, 5] = 9000
    write_nifti(subject.images["T2"], raw.images["T2"])
    image, _ = whole(prepare_subject(subject, brats2020, tmp_path / "out", (14, 4, 4)))
    assert image[3].max() > 5


@pytest.mark.parametrize("damage", ["cut voxels", "cut description", "no voxels"])
def test_damaged_results_are_prepared_again(
    tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset, damage: str
) -> None:
    first = prepare_subject(raw_subject[0], brats2020, tmp_path / "out", (4, 4, 4))
    before = whole(first)
    damaged = first.path if "voxels" in damage else first.path.with_suffix(".json")
    if damage == "no voxels":
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:200])
    after = whole(prepare_subject(raw_subject[0], brats2020, tmp_path / "out", (4, 4, 4)))
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], before[1])


def test_errors_in_the_raw_files_are_raised_with_all_faults(tmp_path: Path, brats2020: Dataset) -> None:
    raw = make_raw()
    raw.label[6, 6, 6], raw.label[6, 6, 7] = 3, 7
    raw.images["T1"][:] = 0
    subject = write_and_find(tmp_path / "raw", raw)
    with pytest.raises(PreparationError, match="1 of 1 subjects cannot be used") as caught:
        prepare_subject(subject, brats2020, tmp_path / "out", (4, 4, 4))
    assert [(fault.file, fault.severity, fault.problem) for fault in caught.value.faults] == [
        (subject.label, "error", "holds label values 3, 7, should hold only 0, 1, 2, 4"),
        (subject.images["T1"], "error", "every brain voxel of T1 is 0, values should differ"),
    ]
    assert all(fault.remedy.split()[0] in str(caught.value) for fault in caught.value.faults)
    assert load_prepared(tmp_path / "out") == []


@pytest.mark.parametrize("workers", [1, 2])
def test_whole_data_set_in_one_or_several_processes(tmp_path: Path, brats2020: Dataset, workers: int) -> None:
    for number in (1, 2, 3):
        write_subject(tmp_path / "raw" / f"BraTS20_Training_{number:03}", make_raw(seed=number))
    subjects = find_subjects(tmp_path / "raw", brats2020)
    first = prepare_subject(subjects[1], brats2020, tmp_path / "out", (4, 4, 4))
    kept = first.path.stat().st_mtime_ns
    calls: list[tuple[int, int]] = []
    prepared = prepare_dataset(
        subjects, brats2020, tmp_path / "out", (4, 4, 4), workers=workers, progress=lambda *call: calls.append(call)
    )
    assert [s.name for s in prepared.subjects] == [s.name for s in subjects]
    assert prepared.left_out == prepared.warnings == []
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert first.path.stat().st_mtime_ns == kept
    assert load_prepared(tmp_path / "out") == prepared.subjects


def write_two_bad_of_three(root: Path, dataset: Dataset) -> list[Subject]:
    for number in (1, 2, 3):
        write_subject(root / f"BraTS20_Training_{number:03}", make_raw(seed=number))
    subjects = find_subjects(root, dataset)
    subjects[0].images["T1"].write_bytes(b"no scan")
    write_nifti(subjects[2].images["FLAIR"], make_raw(seed=3).images["FLAIR"][:, :-2])
    return subjects


def test_one_error_lists_all_unusable_subjects_and_the_rest_is_prepared(tmp_path: Path, brats2020: Dataset) -> None:
    subjects = write_two_bad_of_three(tmp_path / "raw", brats2020)
    with pytest.raises(PreparationError, match="2 of 3 subjects cannot be used") as caught:
        prepare_dataset(subjects, brats2020, tmp_path / "out", (4, 4, 4), workers=1)
    assert [fault.file for fault in caught.value.faults] == [subjects[0].images["T1"], subjects[2].images["FLAIR"]]
    for fault in caught.value.faults:
        assert fault.subject in str(caught.value)
        assert str(fault.file.relative_to(tmp_path / "raw")) in str(caught.value)
    assert [s.name for s in load_prepared(tmp_path / "out")] == ["BraTS20_Training_002"]


def test_bad_subjects_are_left_out_where_asked_for(tmp_path: Path, brats2020: Dataset) -> None:
    subjects = write_two_bad_of_three(tmp_path / "raw", brats2020)
    for _ in range(2):
        done = prepare_dataset(subjects, brats2020, tmp_path / "out", (4, 4, 4), workers=1, skip_bad=True)
        assert [subject.name for subject in done.subjects] == ["BraTS20_Training_002"]
        assert done.names_left_out == ["BraTS20_Training_001", "BraTS20_Training_003"]
    with pytest.raises(PreparationError, match="2 of 2 subjects cannot be used"):
        prepare_dataset(subjects[::2], brats2020, tmp_path / "out", (4, 4, 4), workers=1, skip_bad=True)


def test_warnings_are_told_again_when_nothing_is_left_to_do(tmp_path: Path, brats2020: Dataset) -> None:
    raw = make_head()
    raw.images["T1"][raw.images["T1"] > 1000] *= -1
    subject = write_and_find(tmp_path / "raw", raw)
    first, again = (prepare_dataset([subject], brats2020, tmp_path / "out", (4, 4, 4), workers=1) for _ in range(2))
    assert [fault.file for fault in first.warnings] == [subject.images["T1"]]
    assert again == first


def test_a_subject_with_another_ones_scan_is_found_beside_prepared_ones(tmp_path: Path, brats2020: Dataset) -> None:
    first = write_and_find(tmp_path / "raw", make_raw(seed=1), "BraTS20_Training_001")
    prepare_dataset([first], brats2020, tmp_path / "out", (4, 4, 4), workers=1)
    raw = make_raw(seed=2)
    raw.images["T2"] = make_raw(seed=1).images["T2"]
    second = write_and_find(tmp_path / "raw", raw, "BraTS20_Training_002")
    with pytest.raises(PreparationError) as caught:
        prepare_dataset([first, second], brats2020, tmp_path / "out", (4, 4, 4), workers=1)
    (fault,) = caught.value.faults
    assert (fault.subject, fault.file) == ("BraTS20_Training_002", second.images["T2"])
    assert fault.problem == "T2 has the same voxels as T2 of BraTS20_Training_001"


def test_raw_files_may_move(tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset) -> None:
    first = prepare_subject(raw_subject[0], brats2020, tmp_path / "out", (4, 4, 4))
    shutil.move(tmp_path / "raw", tmp_path / "elsewhere")
    moved = find_subjects(tmp_path / "elsewhere", brats2020)[0]
    assert prepare_subject(moved, brats2020, tmp_path / "out", (4, 4, 4)) == first


def test_impossible_arguments_are_refused(tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset) -> None:
    subject = raw_subject[0]
    with pytest.raises(ValueError, match="grown_size"):
        prepare_subject(subject, brats2020, tmp_path / "out", (4, 0, 4))
    with pytest.raises(ValueError, match="workers"):
        prepare_dataset([subject], brats2020, tmp_path / "out", (4, 4, 4), workers=0)
    with pytest.raises(ValueError, match="same name"):
        prepare_dataset([subject, subject], brats2020, tmp_path / "out", (4, 4, 4), workers=1)


COARSE = (2.0, 2.0, 2.0)


def prepare_coarse(subject: Subject, dataset: Dataset, folder: Path) -> Preparation:
    # The box is the whole volume, however far a scan reaches.
    return prepare_dataset([subject], dataset, folder, (20, 18, 16), 1, spacing=COARSE)


def on_another_grid(path: Path) -> None:
    """The same scan, turned and of other voxels, in the same place of the world."""
    image = nib.load(path)
    turn = np.array([[0.96, -0.28, 0, 0], [0.28, 0.96, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    affine = image.affine @ turn @ np.diag([0.8, 1, 1.25, 1])
    middle = (np.array(image.shape) - 1) / 2
    shape = (60, 48, 36)
    affine[:3, 3] += image.affine[:3, :3] @ middle + image.affine[:3, 3] - affine[:3, 3]
    affine[:3, 3] -= affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    order = 0 if path.name.endswith("seg.nii.gz") else 1
    found = resample_from_to(image, (shape, affine), order=order)
    nib.save(nib.Nifti1Image(np.round(found.get_fdata()).astype(np.int16), affine), path)


def test_other_voxels_keep_the_label_as_it_is_beside_them(tmp_path: Path, brats2020: Dataset) -> None:
    raw = make_head((40, 36, 32))
    subject = write_and_find(tmp_path / "raw", raw)
    preparation = prepare_coarse(subject, brats2020, tmp_path / "out")
    (prepared,) = preparation.subjects
    assert not preparation.warnings
    assert prepared.metadata.spacing == pytest.approx(COARSE)
    assert prepared.metadata.original_shape == (20, 18, 16)
    assert prepared.metadata.truth is not None
    np.testing.assert_array_equal(np.array(brats2020.label_values)[prepared.truth()], raw.label)
    _, label = prepared.crop((0, 0, 0), prepared.shape)
    assert np.count_nonzero(label) * 8 == pytest.approx(np.count_nonzero(raw.label), rel=0.15)
    kept = prepared.path.stat().st_mtime_ns
    assert prepare_coarse(subject, brats2020, tmp_path / "out").subjects == [prepared]
    assert prepared.path.stat().st_mtime_ns == kept
    # Half of it is what a killed copy leaves.
    truth = prepared.path.with_name(f"{prepared.name}.truth.npy")
    truth.write_bytes(truth.read_bytes()[:200])
    with pytest.raises(PreparedError, match="prepare the subject again"):
        prepared.truth()
    (again,) = prepare_coarse(subject, brats2020, tmp_path / "out").subjects
    np.testing.assert_array_equal(np.array(brats2020.label_values)[again.truth()], raw.label)


def test_the_voxels_of_the_files_need_no_second_label(tmp_path: Path, brats2020: Dataset) -> None:
    subject = write_and_find(tmp_path / "raw", make_head((40, 36, 32)))
    own = prepare_subject(subject, brats2020, tmp_path / "own", (8, 8, 8))
    stated = prepare_dataset([subject], brats2020, tmp_path / "stated", (8, 8, 8), 1, spacing=(1.0, 1.0, 1.0))
    (same,) = stated.subjects
    assert same.metadata.truth is None
    np.testing.assert_array_equal(same.open(), own.open())


@pytest.mark.parametrize("role", ["T2", "label"])
def test_files_on_other_grids_are_placed_only_where_a_voxel_size_is_asked_for(
    tmp_path: Path, brats2020: Dataset, role: str
) -> None:
    raw = make_head((40, 36, 32))
    subject = write_and_find(tmp_path / "raw", raw)
    whole = prepare_coarse(subject, brats2020, tmp_path / "whole").subjects[0]
    path = subject.files[role]
    on_another_grid(path)
    with pytest.raises(PreparationError) as caught:
        prepare_subject(subject, brats2020, tmp_path / "out", (8, 8, 8))
    assert "or give a --spacing" in caught.value.faults[0].remedy
    preparation = prepare_coarse(subject, brats2020, tmp_path / "out")
    (warning,) = preparation.warnings
    assert (warning.file, warning.severity) == (path, "warning")
    assert "placed by its affine, as --spacing asks for" in warning.remedy
    (placed,) = preparation.subjects
    (image, label), (images, labels) = (s.crop((0, 0, 0), s.shape) for s in (placed, whole))
    tumour, marked = label != 0, labels != 0
    # Of some 60 voxels most are at the border.
    assert 2 * np.count_nonzero(tumour & marked) > 0.75 * (np.count_nonzero(tumour) + np.count_nonzero(marked))
    # At its border the copy has darkened.
    inside = ndimage.binary_erosion(images[0] != np.float16(whole.background[0]), iterations=2)
    assert np.corrcoef(image[3][inside], images[3][inside])[0, 1] > 0.95
    assert placed.truth().shape == ((60, 48, 36) if role == "label" else raw.label.shape)


def test_the_box_of_a_prediction_is_that_of_a_training(tmp_path: Path, brats2020: Dataset) -> None:
    raw = make_raw(shape=(30, 30, 30), box=((1, 9), (2, 10), (4, 9)))
    subject = write_and_find(tmp_path / "raw", raw)
    # The crop is larger than what the box is grown to, and the brain lies at the volume's end.
    prepared = prepare_subject(subject, brats2020, tmp_path / "out", (12, 12, 12)).padded_to((16, 16, 16))
    scans = {modality: reorient(read_volume(path)).voxels for modality, path in subject.images.items()}
    normalised = normalise_scans(scans, (12, 12, 12))
    padding = padding_to((16, 16, 16), normalised.box, (30, 30, 30), (12, 12, 12))
    assert prepared.shape == (16, 16, 16)
    np.testing.assert_array_equal(normalised.image(padding), whole(prepared)[0])


def test_what_lies_outside_the_first_scans_extent_is_told(tmp_path: Path, brats2020: Dataset) -> None:
    subject = write_and_find(tmp_path / "raw", make_head((40, 36, 32), tumour_side=1))
    flair = nib.load(subject.images["FLAIR"])
    marked = np.argwhere(np.asarray(nib.load(subject.label).dataobj))
    kept = int(np.median(marked[:, 0]))
    nib.save(flair.slicer[:kept], subject.images["FLAIR"])
    warnings = prepare_coarse(subject, brats2020, tmp_path / "out").warnings
    cut = {fault.file: fault.problem for fault in warnings if "cut off" in fault.problem}
    assert cut.keys() == {subject.images[modality] for modality in ("T1ce", "T1", "T2")} | {subject.label}
    said = re.match(r"(.*)% of the label lie outside the extent of FLAIR", cut[subject.label])
    assert float(said[1]) == pytest.approx(100 * (marked[:, 0] >= kept).mean(), abs=0.1)


def test_a_voxel_size_that_files_should_have_holds_whatever_they_are_brought_to(
    tmp_path: Path, brats2020: Dataset
) -> None:
    subject = write_and_find(tmp_path / "raw", make_head((40, 36, 32)))
    stated = replace(brats2020, spacing=(1.0, 1.0, 3.0))
    with pytest.raises(PreparationError) as caught:
        prepare_coarse(subject, stated, tmp_path / "out")
    problem = "has voxels of 1 x 1 x 1 mm, should have 1 x 1 x 3 mm"
    assert {fault.problem for fault in caught.value.faults} == {problem}


def test_affines_that_differ_as_headers_round_them_change_nothing(tmp_path: Path, brats2020: Dataset) -> None:
    subject = write_and_find(tmp_path / "raw", make_head((40, 36, 32)))
    before = prepare_subject(subject, brats2020, tmp_path / "before", (8, 8, 8)).open()
    for shift, path in zip((0.008, 0, 0, -0.008, -0.008), subject.files.values(), strict=True):
        image = nib.load(path)
        affine = image.affine.copy()
        affine[0, 3] += shift
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)
    after = prepare_subject(subject, brats2020, tmp_path / "after", (8, 8, 8))
    assert after.metadata.truth is None
    np.testing.assert_array_equal(after.open(), before)


def test_scans_that_lie_far_from_each_other_are_an_error(tmp_path: Path, brats2020: Dataset) -> None:
    subject = write_and_find(tmp_path / "raw", make_head((40, 36, 32)))
    image = nib.load(subject.images["T2"])
    affine = image.affine.copy()
    affine[0, 3] += 500
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), subject.images["T2"])
    with pytest.raises(PreparationError) as caught:
        prepare_coarse(subject, brats2020, tmp_path / "out")
    (error,) = (fault for fault in caught.value.faults if fault.severity == "error")
    assert "would have 0 voxels of brain" in error.problem
    assert error.remedy.startswith("mend the headers")
