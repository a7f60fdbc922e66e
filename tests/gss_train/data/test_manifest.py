from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gss_train.data.manifest import ManifestError, read_manifest

HEADER = "subject,flair,t1ce,t1,t2,seg"
DESCRIPTION: dict[str, Any] = {
    "categories": ["background", "ED", "core", "ET"],
    "label_values": [0, 3, 7, 1],
    "leaders": {"background": ["FLAIR"], "ED": ["FLAIR", "T2"], "core": ["T1ce"], "ET": ["T1ce"]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Empty scans a_flair.nii.gz to b_seg.nii.gz, and a description of their labels."""
    (tmp_path / "scans").mkdir()
    for name in ("a", "b"):
        for role in ("flair", "t1ce", "t1", "t2", "seg"):
            (tmp_path / "scans" / f"{name}_{role}.nii.gz").touch()
    describe(tmp_path)
    return tmp_path


def describe(folder: Path, **changes: Any) -> None:
    (folder / "mine.dataset.json").write_text(json.dumps({**DESCRIPTION, **changes}))


def write(folder: Path, *lines: str, name: str = "mine.csv") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def write_good(folder: Path) -> Path:
    return write(folder, HEADER, "a,scans/a_flair.nii.gz,,,,scans/a_seg.nii.gz")


def faults_of(manifest: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read_manifest(manifest)
    first, *faults = str(caught.value).splitlines()
    assert first == f"{manifest}: {len(faults)} fault{'s' * (len(faults) != 1)}"
    return [fault.removeprefix("  ") for fault in faults]


def check_subjects(manifest: Path, scans: Path) -> None:
    _, subjects = read_manifest(manifest)
    first, second = subjects
    assert (first.name, first.grade, second.name) == ("a", None, "patient b-1")
    assert list(first.images.items()) == [
        ("FLAIR", scans / "a_flair.nii.gz"),
        ("T1ce", scans / "a_t1ce.nii.gz"),
        ("T1", scans / "a_t1.nii.gz"),
        ("T2", scans / "a_t2.nii.gz"),
    ]
    assert first.label == scans / "a_seg.nii.gz"
    assert second.images == {"T1ce": scans / "b_t1ce.nii.gz"}
    assert second.label is None


def test_tables_in_any_order_of_rows_and_columns(folder: Path) -> None:
    whole = "scans/a_seg.nii.gz,a," + ",".join(f"scans/a_{role}.nii.gz" for role in ("t2", "t1", "flair"))
    absolute = folder / "scans" / "a_t1ce.nii.gz"
    lines = [
        "\ufeffseg, Subject,t2,t1,FLAIR,t1ce",
        ",patient b-1,,,,scans/b_t1ce.nii.gz",
        "",
        ",,,,,",
        f"{whole},{absolute}",
    ]
    check_subjects(write(folder, *lines), folder / "scans")


def test_lists_of_objects(folder: Path) -> None:
    whole = {role: f"scans/a_{role}.nii.gz" for role in ("seg", "t2", "t1", "t1ce", "flair")}
    items = [{"subject": "patient b-1", "t1ce": "scans/b_t1ce.nii.gz", "t1": None, "t2": ""}, {"subject": "a", **whole}]
    check_subjects(write(folder, json.dumps(items), name="mine.json"), folder / "scans")


def test_the_data_set_is_as_described(folder: Path) -> None:
    dataset, _ = read_manifest(write_good(folder))
    assert (dataset.name, dataset.title, dataset.num_categories) == ("custom", "mine (custom)", 4)
    assert dataset.categories == ("background", "ED", "core", "ET")
    assert dataset.label_values == (0, 3, 7, 1)
    assert dataset.groups.leaders == ((0,), (0, 3), (1,), (1,))
    assert dataset.groups.modalities == ("FLAIR", "T1ce", "T1", "T2")
    assert dataset.regions == {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}
    assert dataset.spacing is None
    assert dataset.published_split == (219, 50, 100)


def test_regions_and_spacing_can_be_given(folder: Path) -> None:
    regions = {"ET": ["core"], "WT": ["ET", "ED"], "TC": ["ET", "core"]}
    describe(folder, regions=regions, spacing=[1, 0.9, 3])
    dataset, _ = read_manifest(write_good(folder))
    assert dataset.regions == {"WT": (1, 3), "TC": (2, 3), "ET": (2,)}
    assert dataset.spacing == (1.0, 0.9, 3.0)


def test_the_description_may_lie_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "labels.json"
    (folder / "mine.dataset.json").rename(elsewhere)
    assert read_manifest(write_good(folder), elsewhere)[0].label_values == (0, 3, 7, 1)


def test_every_fault_is_reported_together_with_its_line(folder: Path) -> None:
    (folder / "scans" / "notes.txt").touch()
    describe(folder, leaders={**DESCRIPTION["leaders"], "ET": ["T1c"]}, label_values=[0, 3, 3, 1])
    manifest = write(
        folder,
        f"{HEADER},grade",
        "a,scans/a_flair.nii.gz,scans/missing.nii.gz,,,",
        "A,,scans/a_t1ce.nii.gz,,,",
        "",
        "b,,,,,scans/b_seg.nii.gz",
        "../c,scans,,,,",
        "d,scans/a_flair.nii.gz,scans/notes.txt,,,,HGG,more",
        "e,scans/a_flair.nii.gz,scans/notes.txt,,,",
    )
    labels = folder / "mine.dataset.json"
    assert faults_of(manifest) == [
        "line 1: unknown column 'grade', should be one of subject, flair, t1ce, t1, t2, seg",
        "line 7: has 8 cells, should have 7 as the first line",
        f"line 2: t1ce of a: {folder}/scans/missing.nii.gz does not exist, should be a file",
        "line 3: subject A is there already, on line 2",
        "line 5: b has no scan, should have at least one of flair, t1ce, t1, t2",
        "line 6: subject is '../c', should be a name of letters, digits, spaces and _.+-, that starts with a letter, a "
        "digit or _",
        f"line 6: flair of ../c: {folder}/scans is a folder, should be a file",
        f"line 8: flair of e: {folder}/scans/a_flair.nii.gz is given already, on line 2; each file should have one "
        "purpose",
        f"line 8: t1ce of e: {folder}/scans/notes.txt should end with one of .nii.gz, .nii, .mha",
        f"{labels}: label_values: names 3 twice, should name each value once",
        f"{labels}: leaders of ET: unknown modality T1c, should be of FLAIR, T1ce, T1, T2",
    ]


def test_faults_of_json_name_the_line_where_the_object_begins(folder: Path) -> None:
    manifest = write(
        folder,
        "[",
        '  {"subject": "a", "flair": "scans/a_flair.nii.gz"},',
        '  {"subject": "b",',
        '   "t1": 5, "t3": "x", "t2": "scans/b_t2.nii.gz", "t2": "scans/b_t1.nii.gz"},',
        "  [1, 2],",
        '  {"t1ce": "scans/b_t1ce.nii.gz"}',
        "]",
        name="mine.json",
    )
    faults = faults_of(manifest)
    assert [fault.split(":")[0] for fault in faults] == ["line 3", "line 3", "line 3", "line 5", "line 6"]
    for fault, said in zip(faults, ("t1 is 5", "'t3'", "'t2' twice", "[1, 2]", "subject is ''"), strict=True):
        assert said in fault


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("mine.csv", b"", "names no subject"),
        ("mine.csv", HEADER.encode(), "names no subject"),
        ("mine.csv", b"flair,t1\nx,y\n", "line 1: lacks the column 'subject'"),
        ("mine.csv", b"subject,t1,t1\n", "line 1: names the column 't1' twice"),
        ("mine.csv", b'subject,t1\n"a,b\n', "cannot be read"),
        ("mine.csv", b"\xff\xfe\x00a", "cannot be read, should be a UTF-8 text"),
        ("mine.json", b"{}", "it is no JSON list"),
        ("mine.json", b'[{"subject": "a"', "cannot be read"),
        ("mine.json", b'[{"subject": "a"} {"subject": "b"}]', "Expecting ',' delimiter: line 1 column 19"),
        ("mine.json", b"[] x", "Extra data"),
        ("mine.json", b"[" * 100_000, "cannot be read"),
        ("mine.xlsx", b"", "should end with .csv or .json"),
        ("mine.csv", None, "No such file"),
    ],
)
def test_what_is_no_manifest_is_refused(folder: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    assert any(said in fault for fault in faults_of(folder / name))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"categories": ["background"]}, "categories: is ['background'], should be a list of 2 to 255 different names"),
        ({"categories": ["background", "ED", "ED", "ET"]}, "different names"),
        ({"categories": None}, "lacks 'categories'"),
        ({"leaders": None}, "lacks 'leaders'"),
        ({"label_values": [0, 1, 2]}, "has 3 values, should have one for each of 4 categories"),
        ({"label_values": [0, 1, True, 2]}, "label_values: is [0, 1, True, 2], should be a list of whole numbers"),
        ({"label_values": [4, 1, 2, 0]}, "the first category is the background, its value is 4, should be 0"),
        ({"leaders": ["T1"]}, "leaders: is ['T1'], should be an object"),
        ({"leaders": {}}, "leaders of core: missing, should be a list of different modalities"),
        ({"leaders": {**DESCRIPTION["leaders"], "NET": ["T1"]}}, "leaders: unknown category 'NET'"),
        ({"leaders": {**DESCRIPTION["leaders"], "ET": ["T1", "T1"]}}, "leaders of ET: ['T1', 'T1'], should be"),
        ({"categories": ["background", "oedema", "core", "ET"]}, "lacks 'regions'"),
        ({"label_values": None}, "lacks 'label_values'"),
        ({"regions": {"WT": ["ED"]}}, "regions: is {'WT': ['ED']}, should be an object with the categories of WT, TC"),
        ({"regions": {"WT": ["ED"], "TC": ["background"], "ET": ["ET"]}}, "regions: TC is ['background'], should be"),
        ({"spacing": [1, 1]}, "spacing: is [1, 1], should be three voxel sizes"),
        ({"spacing": [1, 1, 0]}, "spacing: is [1, 1, 0]"),
        ({"spacing": [1, 1, 10**400]}, "should be three voxel sizes"),
    ],
)
def test_a_faulty_description_is_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    describe(folder, **changes)
    faults = faults_of(write_good(folder))
    assert all(fault.startswith(f"{folder / 'mine.dataset.json'}: ") for fault in faults)
    assert any(said in fault for fault in faults)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no such file; it should say"), ("[]", "holds a JSON list"), ("{", "cannot be read")]
)
def test_without_a_description_an_example_is_shown(folder: Path, content: str | None, said: str) -> None:
    if content is None:
        (folder / "mine.dataset.json").unlink()
    else:
        (folder / "mine.dataset.json").write_text(content)
    (fault,) = faults_of(write_good(folder))
    assert said in fault
    assert str(folder / "mine.dataset.json") in fault


def test_the_example_of_the_messages_is_valid(folder: Path) -> None:
    (folder / "mine.dataset.json").unlink()
    (fault,) = faults_of(write_good(folder))
    (folder / "mine.dataset.json").write_text(fault[fault.index("{") :])
    dataset, _ = read_manifest(write_good(folder))
    assert dataset.categories == ("BG", "NCR", "ED", "ET")
