from __future__ import annotations

from pathlib import Path

import pytest

from gss_train.data.split_files import SplitError, read_split
from gss_train.data.splits import Split

NAMES = ["Brats18_A_1", "Brats18_B_1", "Brats18_C_1", "Brats18_D_1"]


def write_lists(folder: Path, train: str, val: str, test: str, number: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    for part, text in (("train", train), ("val", val), ("test", test)):
        (folder / f"{part}{number}.txt").write_text(text, encoding="utf-8")
    return folder


def test_lists_name_subjects_with_or_without_their_grade(tmp_path: Path) -> None:
    folder = write_lists(tmp_path, "HGG_Brats18_B_1\nBrats18_A_1\n\n", "LG_Brats18_C_1\r\n", "LGG_Brats18_D_1")
    expected = Split(("Brats18_A_1", "Brats18_B_1"), ("Brats18_C_1",), ("Brats18_D_1",))
    assert read_split(folder, [*NAMES, "Brats18_Z_1"]) == (expected, ("Brats18_Z_1",))


def test_subjects_with_a_grade_in_their_name_are_found_by_every_spelling(tmp_path: Path) -> None:
    names = ["HGG_pat0001_1", "LGG_pat0001_1", "HGG_pat0002_1"]
    folder = write_lists(tmp_path, "HG_pat0001_1\n", "LG_pat0001_1\n", "pat0002_1\n")
    split, left_out = read_split(folder, names)
    assert split == Split(("HGG_pat0001_1",), ("LGG_pat0001_1",), ("HGG_pat0002_1",))
    assert left_out == ()


def test_one_of_several_published_splits(tmp_path: Path) -> None:
    write_lists(tmp_path, "Brats18_A_1", "Brats18_B_1", "Brats18_C_1", number="1")
    write_lists(tmp_path, "Brats18_C_1", "Brats18_A_1", "Brats18_B_1", number="2")
    split, _ = read_split(tmp_path / "train2.txt", NAMES)
    assert split == Split(("Brats18_C_1",), ("Brats18_A_1",), ("Brats18_B_1",))


@pytest.mark.parametrize("header", ["", "subject,purpose\n", "\ufeff"])
def test_tables_of_two_columns(tmp_path: Path, header: str) -> None:
    path = tmp_path / "split.csv"
    rows = "Brats18_A_1,Training\nHGG_Brats18_B_1, validation\nBrats18_C_1,Inference\nBrats18_D_1,Training\n"
    path.write_text(header + rows, encoding="utf-8")
    split, left_out = read_split(path, NAMES)
    assert split == Split(("Brats18_A_1", "Brats18_D_1"), ("Brats18_B_1",), ("Brats18_C_1",))
    assert left_out == ()


def test_one_error_lists_unknown_repeated_and_ambiguous_subjects(tmp_path: Path) -> None:
    names = [*NAMES, "HGG_pat1", "LGG_pat1"]
    folder = write_lists(tmp_path, "Brats18_A_1\nBrats18_X_1\n", "Brats18_B_1\nLGG_pat1\npat1\n", "HGG_Brats18_A_1\n")
    with pytest.raises(SplitError) as caught:
        read_split(folder, names)
    message = str(caught.value)
    assert "train.txt, line 2: Brats18_X_1 is no subject of this data set" in message
    assert "test.txt, line 1: HGG_Brats18_A_1 is there already, in train.txt, line 1" in message
    assert "val.txt, line 3: pat1 could be HGG_pat1 or LGG_pat1" in message
    assert len(message.splitlines()) == 4


def test_a_subject_of_the_other_grade_is_unknown(tmp_path: Path) -> None:
    folder = write_lists(tmp_path, "LGG_a\n", "HGG_b\n", "HGG_c\n")
    with pytest.raises(SplitError, match="LGG_a is no subject"):
        read_split(folder, ["HGG_a", "HGG_b", "HGG_c"])


def test_a_part_without_subjects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="names no subject for val, should name at least one"):
        read_split(write_lists(tmp_path, "Brats18_A_1", "", "Brats18_B_1"), NAMES)


def test_missing_lists_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("Brats18_A_1")
    with pytest.raises(SplitError) as caught:
        read_split(tmp_path, NAMES)
    assert "val.txt: no such file" in str(caught.value)
    assert "test.txt: no such file" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, "no such file or folder"),
        ("nowhere.csv", None, "no such file"),
        ("split.json", b"{}", "should be a folder with train.txt"),
        ("split.csv", b"Brats18_A_1,Trainig\n", "line 1: is 'Brats18_A_1,Trainig', should be a subject and one of"),
        ("split.csv", b"Brats18_A_1\n", "line 1: is 'Brats18_A_1', should be"),
        ("split.csv", b'"Brats18_A_1,Training\n', "is no CSV"),
        ("split.csv", b"\xff\xfe\x00", "cannot be read as UTF-8"),
    ],
)
def test_what_is_no_split_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SplitError, match=message):
        read_split(tmp_path / name, NAMES)
