from __future__ import annotations

from pathlib import Path

import pytest

from gss_train.data.datasets import DATASETS, MODALITIES, Dataset
from gss_train.data.layouts import LayoutError, describe_layout, find_subjects, recognise_dataset

SUFFIXES = {"FLAIR": "flair", "T1ce": "t1ce", "T1": "t1", "T2": "t2"}
SUFFIXES_OF_2023 = {"FLAIR": "t2f", "T1ce": "t1c", "T1": "t1n", "T2": "t2w"}
SUBJECT_FOLDERS = {
    "brats2018": "HGG/Brats18_XXXX_AAA_1",
    "brats2019": "LGG/BraTS19_XXXX_001_1",
    "brats2020": "BraTS20_Training_001",
    "brats2021": "BraTS2021_00000",
    "brats2023": "BraTS-GLI-00000-000",
}


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def touch_nifti(folder: Path, ending: str = ".nii.gz") -> None:
    """The five files of a subject, of any edition but BraTS2015."""
    is_2023 = folder.name.startswith("BraTS-GLI-")
    for suffix in (*(SUFFIXES_OF_2023 if is_2023 else SUFFIXES).values(), "seg"):
        touch(folder / f"{folder.name}{'-' if is_2023 else '_'}{suffix}{ending}")


def touch_mha(folder: Path, label: str = "VSD.Brain_3more.XX.O.OT.54517") -> None:
    names = ["VSD.Brain.XX.O.MR_Flair.54512", "VSD.Brain.XX.O.MR_T1.54513", "VSD.Brain.XX.O.MR_T1c.54514"]
    for name in [*names, "VSD.Brain.XX.O.MR_T2.54515", label]:
        touch(folder / name / f"{name}.mha")
        touch(folder / name / "license.txt")


def test_brats2015_tells_subjects_of_one_name_apart_by_grade(tmp_path: Path) -> None:
    root = tmp_path / "BRATS2015_Training"
    touch_mha(root / "HGG" / "brats_2013_pat0001_1", "VSD.Brain_3more.XX.O.OT.54517")
    touch_mha(root / "LGG" / "brats_2013_pat0001_1", "VSD.Brain.XX.XX.OT.6560")
    touch_mha(root / "HGG" / "brats_tcia_pat105_0001", "VSD.Brain_2more.XX.XX.OT.42283")
    subjects = find_subjects(tmp_path, DATASETS["brats2015"])
    assert [(s.name, s.grade) for s in subjects] == [
        ("HGG_brats_2013_pat0001_1", "HGG"),
        ("HGG_brats_tcia_pat105_0001", "HGG"),
        ("LGG_brats_2013_pat0001_1", "LGG"),
    ]
    folder = root / "HGG" / "brats_2013_pat0001_1"
    expected = {"FLAIR": "MR_Flair.54512", "T1ce": "MR_T1c.54514", "T1": "MR_T1.54513", "T2": "MR_T2.54515"}
    assert subjects[0].images == {
        modality: folder / f"VSD.Brain.XX.O.{name}" / f"VSD.Brain.XX.O.{name}.mha"
        for modality, name in expected.items()
    }
    assert tuple(subjects[0].images) == MODALITIES
    assert subjects[0].label == folder / "VSD.Brain_3more.XX.O.OT.54517" / "VSD.Brain_3more.XX.O.OT.54517.mha"


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_brats2018_files_and_grades(tmp_path: Path, ending: str) -> None:
    for grade, name in (("LGG", "Brats18_2013_0_1"), ("HGG", "Brats18_XXXX_AAA_1")):
        touch_nifti(tmp_path / "deep" / "inside" / grade / name, ending)
    subjects = find_subjects(tmp_path, DATASETS["brats2018"])
    assert [(s.name, s.grade) for s in subjects] == [("Brats18_2013_0_1", "LGG"), ("Brats18_XXXX_AAA_1", "HGG")]
    folder = tmp_path / "deep" / "inside" / "LGG" / "Brats18_2013_0_1"
    assert subjects[0].images == {m: folder / f"{folder.name}_{suffix}{ending}" for m, suffix in SUFFIXES.items()}
    assert subjects[0].label == folder / f"{folder.name}_seg{ending}"


def test_brats2018_root_may_be_the_folder_of_one_grade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch_nifti(tmp_path / "HGG" / "Brats18_XXXX_AAA_1")
    monkeypatch.chdir(tmp_path / "HGG")
    assert [s.grade for s in find_subjects(Path(), DATASETS["brats2018"])] == ["HGG"]


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_brats2020_of_the_kaggle_copy(tmp_path: Path, brats2020: Dataset, ending: str) -> None:
    root = tmp_path / "MICCAI_BraTS2020_TrainingData"
    for number in (355, 2, 1):
        touch_nifti(root / f"BraTS20_Training_{number:03}", ending)
    misnamed = root / "BraTS20_Training_355" / f"W39_1998.09.19_Segm{ending}"
    (root / "BraTS20_Training_355" / f"BraTS20_Training_355_seg{ending}").rename(misnamed)
    touch(tmp_path / "MICCAI_BraTS2020_ValidationData" / "BraTS20_Validation_001" / "BraTS20_Validation_001_t1.nii")
    subjects = find_subjects(tmp_path, brats2020)
    assert [s.name for s in subjects] == [f"BraTS20_Training_{number:03}" for number in (1, 2, 355)]
    assert all(s.grade is None for s in subjects)
    assert subjects[2].label == misnamed


def test_foreign_and_hidden_files_are_ignored(tmp_path: Path, brats2020: Dataset) -> None:
    folder = tmp_path / "BraTS20_Training_001"
    touch_nifti(folder)
    touch(tmp_path / "phantom.json")
    touch(tmp_path / "name_mapping.csv")
    touch(tmp_path / "other" / "scan.nii.gz")
    touch(folder / "._BraTS20_Training_001_flair.nii.gz")
    touch(folder / "notes.txt")
    assert [s.name for s in find_subjects(tmp_path, brats2020)] == ["BraTS20_Training_001"]


def test_links_are_followed_and_loops_end(tmp_path: Path, brats2020: Dataset) -> None:
    touch_nifti(tmp_path / "store" / "BraTS20_Training_001")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "training").symlink_to(tmp_path / "store")
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root")
    assert [s.name for s in find_subjects(tmp_path / "root", brats2020)] == ["BraTS20_Training_001"]


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("kind", ["missing", "file", "empty", "foreign"])
def test_a_root_without_subjects_is_refused_with_the_expected_layout(tmp_path: Path, name: str, kind: str) -> None:
    root = tmp_path / "root"
    if kind == "file":
        touch(root)
    elif kind != "missing":
        root.mkdir()
    if kind == "foreign":
        touch(root / "phantom.json")
    said = {
        "missing": "no such folder",
        "file": "should be a folder",
        "empty": "is empty",
        "foreign": "found no subject",
    }
    with pytest.raises(LayoutError) as caught:
        find_subjects(root, DATASETS[name])
    message = str(caught.value)
    assert str(root) in message
    assert said[kind] in message
    assert DATASETS[name].title in message
    assert describe_layout(DATASETS[name]) in message


def test_layout_descriptions_name_folders_and_files() -> None:
    assert "VSD.Brain.XX.O.MR_T1c.<id>/*.mha" in describe_layout(DATASETS["brats2015"])
    assert "Brats18_*_t1ce.nii.gz" in describe_layout(DATASETS["brats2018"])
    assert "BraTS20_Training_NNN_seg.nii.gz" in describe_layout(DATASETS["brats2020"])


def test_one_error_lists_everything_that_is_missing(tmp_path: Path, brats2020: Dataset) -> None:
    for number in (1, 2, 3):
        touch_nifti(tmp_path / f"BraTS20_Training_{number:03}")
    for suffix in SUFFIXES.values():
        (tmp_path / "BraTS20_Training_001" / f"BraTS20_Training_001_{suffix}.nii.gz").unlink()
    (tmp_path / "BraTS20_Training_003" / "BraTS20_Training_003_seg.nii.gz").unlink()
    with pytest.raises(LayoutError) as caught:
        find_subjects(tmp_path, brats2020)
    message = str(caught.value)
    assert "BraTS20_Training_001: has no scan" in message
    assert "BraTS20_Training_003: lacks label" in message
    assert "BraTS20_Training_002" not in message


def test_one_scan_makes_a_subject(tmp_path: Path) -> None:
    folder = tmp_path / "HGG" / "brats_tcia_pat105_0001"
    touch_mha(folder)
    for name in ("Flair.54512", "T1.54513", "T2.54515"):
        (folder / f"VSD.Brain.XX.O.MR_{name}" / f"VSD.Brain.XX.O.MR_{name}.mha").unlink()
    (subject,) = find_subjects(tmp_path, DATASETS["brats2015"])
    assert tuple(subject.images) == ("T1ce",)
    assert subject.label is not None


@pytest.mark.parametrize("missing", [("FLAIR",), ("T1ce", "T2"), ("FLAIR", "T1", "T2")])
def test_scans_that_are_there_keep_their_order(tmp_path: Path, brats2020: Dataset, missing: tuple[str, ...]) -> None:
    folder = tmp_path / "BraTS20_Training_001"
    touch_nifti(folder)
    for modality in missing:
        (folder / f"{folder.name}_{SUFFIXES[modality]}.nii.gz").unlink()
    (subject,) = find_subjects(tmp_path, brats2020)
    assert tuple(subject.images) == tuple(modality for modality in MODALITIES if modality not in missing)


@pytest.mark.parametrize("name", SUBJECT_FOLDERS)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])
def test_every_edition_is_read_and_recognised_in_every_format(tmp_path: Path, name: str, ending: str) -> None:
    folder = tmp_path / "archive" / "Training" / SUBJECT_FOLDERS[name]
    touch_nifti(folder, ending)
    (subject,) = find_subjects(tmp_path, DATASETS[name])
    assert subject.name == folder.name
    assert subject.grade == (folder.parent.name if folder.parent.name in {"HGG", "LGG"} else None)
    assert tuple(subject.images) == MODALITIES
    separator, suffixes = ("-", SUFFIXES_OF_2023) if name == "brats2023" else ("_", SUFFIXES)
    for modality, path in subject.images.items():
        assert path == folder / f"{folder.name}{separator}{suffixes[modality]}{ending}"
    assert subject.label == folder / f"{folder.name}{separator}seg{ending}"
    assert recognise_dataset(tmp_path) == (DATASETS[name], 1)


@pytest.mark.parametrize("name", ["brats2018", "brats2019"])
def test_grades_may_be_left_out_and_folders_of_many_subjects_are_none(tmp_path: Path, name: str) -> None:
    folder = Path(SUBJECT_FOLDERS[name]).name
    touch_nifti(tmp_path / f"{folder.split('_')[0]}_Training" / folder)
    assert [(s.name, s.grade) for s in find_subjects(tmp_path, DATASETS[name])] == [(folder, None)]


def test_brats2015_may_be_flat(tmp_path: Path) -> None:
    touch_mha(tmp_path / "all" / "brats_tcia_pat105_0001")
    assert [(s.name, s.grade) for s in find_subjects(tmp_path, DATASETS["brats2015"])] == [
        ("brats_tcia_pat105_0001", None)
    ]
    assert recognise_dataset(tmp_path)[0].name == "brats2015"


def test_each_file_may_lie_in_a_folder_of_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "HGG" / "BraTS19_CBICA_AQA_1"
    for suffix in (*SUFFIXES.values(), "seg"):
        name = f"{folder.name}_{suffix}.nii"
        touch(folder / name / name)
    (subject,) = find_subjects(tmp_path, DATASETS["brats2019"])
    assert subject.images["T1"] == folder / f"{folder.name}_t1.nii" / f"{folder.name}_t1.nii"
    assert len(subject.images) == 4
    assert subject.label is not None


def test_validation_subjects_are_there_only_where_labels_are_not_needed(tmp_path: Path, brats2020: Dataset) -> None:
    folder = tmp_path / "BraTS20_Validation_001"
    touch_nifti(folder)
    (folder / f"{folder.name}_seg.nii.gz").unlink()
    assert [s.label for s in find_subjects(tmp_path, brats2020, require_labels=False)] == [None]
    with pytest.raises(LayoutError, match=r"found no labelled subject of BraTS2020 .*, but 1 subject of BraTS2020"):
        find_subjects(tmp_path, brats2020)


def test_of_several_editions_the_asked_for_is_read_and_none_is_guessed(tmp_path: Path) -> None:
    for folder in (SUBJECT_FOLDERS["brats2020"], SUBJECT_FOLDERS["brats2021"], "BraTS2021_00002"):
        touch_nifti(tmp_path / folder)
    assert len(find_subjects(tmp_path, DATASETS["brats2021"])) == 2
    with pytest.raises(LayoutError, match="1 subject of BraTS2020, 2 subjects of BraTS2021; pick one with --dataset"):
        recognise_dataset(tmp_path)
    with pytest.raises(LayoutError, match=r"found no subject of BraTS2018 .* but 1 subject of BraTS2020, 2 subjects"):
        find_subjects(tmp_path, DATASETS["brats2018"])


def test_what_is_not_recognised_is_listed(tmp_path: Path) -> None:
    touch(tmp_path / "thesis" / "chapter.txt")
    touch(tmp_path / "scan.nii.gz")
    with pytest.raises(LayoutError, match=r"recognised no BraTS edition .* it holds thesis/, scan\.nii\.gz") as caught:
        recognise_dataset(tmp_path)
    assert all(dataset.title in str(caught.value) for dataset in DATASETS.values())
    with pytest.raises(LayoutError, match="no such folder"):
        recognise_dataset(tmp_path / "nowhere")


def test_editions_of_four_categories_differ_in_label_values_only() -> None:
    four = [dataset for dataset in DATASETS.values() if dataset.num_categories == 4]
    assert [dataset.name for dataset in four] == list(SUBJECT_FOLDERS)
    assert {tuple(dataset.regions.items()) for dataset in four} == {(("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,)))}
    assert {dataset.label_values for dataset in four[:4]} == {(0, 1, 2, 4)}
    assert DATASETS["brats2023"].label_values == (0, 1, 2, 3)


def test_labels_may_be_left_out_on_request(tmp_path: Path, brats2020: Dataset) -> None:
    touch_nifti(tmp_path / "BraTS20_Training_001")
    (tmp_path / "BraTS20_Training_001" / "BraTS20_Training_001_seg.nii.gz").unlink()
    assert find_subjects(tmp_path, brats2020, require_labels=False)[0].label is None


def test_two_files_for_one_purpose_are_refused(tmp_path: Path, brats2020: Dataset) -> None:
    touch_nifti(tmp_path / "BraTS20_Training_001")
    touch(tmp_path / "BraTS20_Training_001" / "BraTS20_Training_001_t1.nii")
    with pytest.raises(LayoutError, match="has 2 files for T1 and should have one"):
        find_subjects(tmp_path, brats2020)


def test_a_subject_found_twice_is_refused(tmp_path: Path, brats2020: Dataset) -> None:
    touch_nifti(tmp_path / "a" / "BraTS20_Training_001")
    touch_nifti(tmp_path / "b" / "BraTS20_Training_001")
    with pytest.raises(LayoutError, match="BraTS20_Training_001: found twice"):
        find_subjects(tmp_path, brats2020)


def test_time_points_of_a_patient_are_told(tmp_path: Path) -> None:
    folders = ("HGG/brats_tcia_pat105_0001", "HGG/brats_tcia_pat105_0193", "LGG/brats_tcia_pat105_0001", "HGG/other_1")
    for folder in folders:
        touch_mha(tmp_path / "2015" / folder, "VSD.Brain.XX.O.OT.1")
    found = {subject.name: subject.patient for subject in find_subjects(tmp_path / "2015", DATASETS["brats2015"])}
    assert found == {
        "HGG_brats_tcia_pat105_0001": "HGG_brats_tcia_pat105",
        "HGG_brats_tcia_pat105_0193": "HGG_brats_tcia_pat105",
        "HGG_other_1": None,
        "LGG_brats_tcia_pat105_0001": "LGG_brats_tcia_pat105",
    }
    for name in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001"):
        (tmp_path / "2023" / name).mkdir(parents=True)
        for suffix in ("t2f", "seg"):
            (tmp_path / "2023" / name / f"{name}-{suffix}.nii.gz").touch()
    found = {subject.name: subject.patient for subject in find_subjects(tmp_path / "2023", DATASETS["brats2023"])}
    assert set(found.values()) == {"BraTS-GLI-00005"}
