"""What is found in and between subjects. `test_prepare.py` makes each fault on disk, as a user would meet it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gss_train.data.datasets import MODALITIES, Dataset, Subject
from gss_train.data.faults import Fault, describe_faults
from gss_train.data.layouts import find_subjects
from gss_train.data.verification import (
    check_subjects,
    check_volumes,
    read_and_check,
)
from gss_train.data.volumes import Volume
from tests.gss_train.data.raw_files import RAS_AFFINE, Raw, make_folded_head, make_head, make_raw, write_subject

NAMES = {**{modality: f"{modality.lower()}.nii" for modality in MODALITIES}, "label": "seg.nii"}
ROLES = (*MODALITIES, "label")


def subject_of(roles: tuple[str, ...] = ROLES, name: str = "one") -> Subject:
    files = {role: Path("raw") / NAMES[role] for role in roles}
    label = files.pop("label", None)
    return Subject(name, None, files, label)


def volumes_of(raw: Raw) -> dict[str, Volume]:
    return {role: Volume(voxels, RAS_AFFINE) for role, voxels in [*raw.images.items(), ("label", raw.label)]}


def found(volumes: dict[str, Volume], dataset: Dataset) -> list[tuple[str | None, str]]:
    """Role and problem of every fault."""
    faults = check_volumes(subject_of(tuple(volumes)), dataset, volumes)
    roles = {Path("raw") / name: role for role, name in NAMES.items()}
    assert all(fault.remedy and fault.subject == "one" for fault in faults)
    return [(None if fault.file is None else roles[fault.file], fault.problem) for fault in faults]


@pytest.mark.parametrize("roles", [ROLES, MODALITIES, ("T1",), ("T1", "label"), ("FLAIR", "T2", "label")])
def test_sound_subjects_have_no_faults(brats2020: Dataset, roles: tuple[str, ...]) -> None:
    for raw in (make_head(seed=1), make_head(seed=2, tumour_side=1)):
        volumes = {role: volume for role, volume in volumes_of(raw).items() if role in roles}
        assert found(volumes, brats2020) == []


def test_voxels_that_are_dark_in_one_scan_are_no_fault(brats2020: Dataset) -> None:
    assert found(volumes_of(make_raw()), brats2020) == []


def test_what_differs_from_most_is_at_fault(brats2020: Dataset) -> None:
    """Not all that differ from the first: here it is the first that is shifted."""
    volumes = volumes_of(make_head())
    shifted = RAS_AFFINE.copy()
    shifted[2, 3] = 5
    volumes["FLAIR"] = replace(volumes["FLAIR"], affine=shifted)
    ((role, problem),) = found(volumes, brats2020)
    assert role == "FLAIR"
    assert "5 mm away from where T1ce lies: its origin" in problem


def test_of_two_that_differ_the_second_is_at_fault(brats2020: Dataset) -> None:
    volumes = {role: volume for role, volume in volumes_of(make_head()).items() if role in {"T1", "T2"}}
    volumes["T2"] = replace(volumes["T2"], voxels=volumes["T2"].voxels[1:])
    assert found(volumes, brats2020) == [("T2", "has shape (31, 30, 28), should have (32, 30, 28) as T1")]


def test_rounded_affines_are_the_same_grid(brats2020: Dataset) -> None:
    volumes = volumes_of(make_head())
    rounded = RAS_AFFINE + 1e-6
    rounded[3] = RAS_AFFINE[3]
    volumes["T2"] = replace(volumes["T2"], affine=rounded)
    assert found(volumes, brats2020) == []


def test_the_spacing_that_a_data_set_asks_for_is_checked(brats2020: Dataset) -> None:
    dataset = replace(brats2020, spacing=(1.0, 1.0, 2.0))
    faults = found(volumes_of(make_head()), dataset)
    assert [role for role, _ in faults] == list(ROLES)
    assert {problem for _, problem in faults} == {"has voxels of 1 x 1 x 1 mm, should have 1 x 1 x 2 mm"}


def test_several_faults_of_one_subject_are_all_found(brats2020: Dataset) -> None:
    raw = make_head()
    raw.label[16, 15, 14] = 9
    raw.images["T1"][raw.images["T1"] != 0] = 300
    raw.images["T2"] = raw.images["FLAIR"].copy()
    assert found(volumes_of(raw), brats2020) == [
        ("label", "holds label values 9, should hold only 0, 1, 2, 4"),
        ("T1", "every brain voxel of T1 is 300, values should differ"),
        ("T2", "T2 has the same voxels as FLAIR (flair.nii)"),
    ]


def test_infinite_voxels_do_not_hide_other_faults(brats2020: Dataset) -> None:
    raw = make_head()
    raw.images["T1"] = np.where(raw.images["T1"] > 900, np.inf, 1.0).astype(np.float32)
    raw.images["T2"] = raw.images["FLAIR"].copy()
    faults = found(volumes_of(raw), brats2020)
    assert [role for role, _ in faults] == ["T1", "T2"]
    assert re.match(r"\d+ of 26880 voxels are NaN or infinite", faults[0][1])


def test_many_unexpected_label_values_are_not_all_listed(brats2020: Dataset) -> None:
    raw = make_head()
    raw.label[:, 0, 0] = np.arange(100, 132)
    raw.label[:, 15, 14] = 1
    (problem,) = (problem for _, problem in found(volumes_of(raw), brats2020) if "label values" in problem)
    assert problem.endswith("118, 119, ..., should hold only 0, 1, 2, 4")


def test_no_brain_at_all(brats2020: Dataset) -> None:
    volumes = volumes_of(make_head())
    empty = {role: replace(volume, voxels=np.zeros_like(volume.voxels)) for role, volume in volumes.items()}
    assert found(empty, brats2020) == [(None, "there is no brain: FLAIR, T1ce, T1, T2 are 0 everywhere")]
    negative = {"T1": replace(volumes["T1"], voxels=-volumes["T1"].voxels)}
    assert found(negative, brats2020) == [("T1", "there is no brain: T1 have a sum that is nowhere above 0")]


@pytest.mark.parametrize(("outside", "warned"), [(0.005, False), (0.02, True)])
def test_a_label_outside_the_brain_is_a_warning_above_a_small_share(
    brats2020: Dataset, outside: float, warned: bool
) -> None:
    raw = make_head()
    voxels = round(outside * np.count_nonzero(raw.label))
    raw.label[0, 0, :voxels] = 2
    faults = check_volumes(subject_of(), brats2020, volumes_of(raw))
    assert [fault.severity for fault in faults] == ["warning"] * warned
    assert not warned or f"({voxels} of {np.count_nonzero(raw.label)} voxels) lie outside" in faults[0].problem


def test_what_cannot_be_used_is_compared_with_nothing(brats2020: Dataset) -> None:
    """A scan without background is an error, and no warning about its place or anything else comes with it."""
    raw = make_folded_head()
    affine = RAS_AFFINE @ np.diag((5, 5, 5, 1))
    volumes = {role: Volume(volume.voxels, affine) for role, volume in volumes_of(raw).items()}
    assert found(volumes, brats2020) == []
    volumes["T1"] = replace(volumes["T1"], voxels=volumes["T1"].voxels[::-1] - 3)
    assert found(volumes, brats2020) == [("T1", "T1 is 0 in 0.0% of its voxels; its background seems to be -3")]


def test_doubts_are_warnings(brats2020: Dataset) -> None:
    raw = make_folded_head()
    raw.images["T2"] = np.sqrt(raw.images["FLAIR"])
    raw.images["T1"] = np.roll(raw.images["T1"], 3, 1)
    affine = RAS_AFFINE @ np.diag((5, 5, 5, 1))
    volumes = {role: Volume(volume.voxels, affine) for role, volume in volumes_of(raw).items()}
    faults = check_volumes(subject_of(), brats2020, volumes)
    assert [(fault.severity, fault.problem) for fault in faults] == [
        ("warning", "T2 seems a copy of FLAIR (flair.nii) with other intensities, in the same order"),
        ("warning", "T1 does not lie where the brain in FLAIR, T1ce, T2 lies: it seems moved, or another subject's"),
    ]


def test_each_file_is_read_once_and_by_one_orientation(tmp_path: Path, brats2020: Dataset) -> None:
    write_subject(tmp_path / "raw" / "BraTS20_Training_001", make_head(), ".nii")
    subject = find_subjects(tmp_path, brats2020)[0]
    checked = read_and_check(subject, brats2020)
    assert (checked.faults, checked.orientation, set(checked.volumes)) == ([], "LPS", set(ROLES))
    assert len(set(checked.digests.values())) == 4
    subject.images["FLAIR"].unlink()
    assert subject.label is not None
    subject.label.write_bytes(b"")
    checked = read_and_check(subject, brats2020)
    assert [fault.file for fault in checked.faults] == [subject.images["FLAIR"], subject.label]
    assert set(checked.volumes) == {"T1ce", "T1", "T2"}


def test_a_scan_under_two_names_is_the_later_ones_fault() -> None:
    subjects = [subject_of(name=name) for name in ("a", "b", "c")]
    digests = {"a": {"FLAIR": "1", "T2": "2"}, "b": {"FLAIR": "3"}, "c": {"T1": "2", "T2": "4"}}
    (fault,) = check_subjects(subjects, digests)
    assert (fault.subject, fault.file, fault.severity) == ("c", subjects[2].images["T1"], "error")
    assert fault.problem == "T1 has the same voxels as T2 of a"
    assert check_subjects(subjects, {"b": digests["b"], "c": digests["c"]}) == []
    # Twice within one subject is another fault, found there.
    assert check_subjects(subjects, {"a": {"T1": "1", "T2": "1"}}) == []


def test_the_table_names_everything_and_lists_errors_first() -> None:
    root = Path("/data/my raw")
    faults = [
        Fault("b", root / "b" / "b_t1.nii", "looks odd, " * 20, "look", "warning"),
        Fault("long name", root / "x" / "seg.nii", "is bad", "mend"),
        Fault("a", None, "is nowhere", "find"),
    ]
    text = describe_faults(faults, width=90)
    lines = text.splitlines()
    assert lines[:2] == [f"Files in {root}", "subject    file        problem, and -> remedy"]
    assert lines[2:6] == [
        "a          -           error: is nowhere",
        "                       -> find",
        "long name  x/seg.nii   error: is bad",
        "                       -> mend",
    ]
    assert lines[6].startswith("b          b/b_t1.nii  warning: looks odd, looks odd")
    assert lines[-1].strip() == "-> look"
    assert max(map(len, lines)) <= 90
    assert " ".join(" ".join(lines[6:-1]).split()).count("looks odd") == 20
