"""Which split `--split` stands for, on folders of files that hold nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gss_train.common.errors import UserError
from gss_train.config import parse_config
from gss_train.data import published_splits
from gss_train.subjects import Source, find_source, resolve_dataset

NOT_COMPARABLE = "its scores are not comparable with published ones"


def make_subject(root: Path, name: str, *, label: bool = True) -> None:
    (root / name).mkdir(parents=True)
    for suffix in ("flair", "seg") if label else ("flair",):
        (root / name / f"{name}_{suffix}.nii.gz").touch()


@pytest.fixture(scope="module")
def all_of_2018(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("brats2018") / "raw"
    for name in published_splits("brats2018")["published-1"].subjects:
        make_subject(root, name)
    return root


def find(root: Path, *arguments: str, dataset: str = "brats2018") -> Source:
    flags = ["--dataset", dataset, "--data-root", str(root), "--preset", "paper", *arguments]
    return find_source(*resolve_dataset(parse_config(flags)))


@pytest.mark.parametrize("dataset", ["brats2018", "auto"])
def test_auto_takes_the_list_whose_subjects_are_there(
    dataset: str, all_of_2018: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = find(all_of_2018, dataset=dataset)
    assert source.split == published_splits("brats2018")["published-1"].listed
    assert source.split.name == "published-1"
    printed = capsys.readouterr().out
    assert "Split of published split 1 of 3 of BraTS2018 (199/29/57 subjects), --split published-1\n" in printed
    assert NOT_COMPARABLE not in printed


def test_auto_knows_the_graded_names_of_2015(tmp_path: Path) -> None:
    listed = published_splits("brats2015")["published"].listed
    for name in (*listed.train, *listed.validation, *listed.test):
        grade, _, folder = name.partition("_")
        for modality in ("MR_Flair", "OT"):
            part = tmp_path / grade / folder / f"VSD.Brain.XX.O.{modality}.1"
            part.mkdir(parents=True)
            (part / "1.mha").touch()
    assert find(tmp_path, dataset="brats2015").split == listed


def test_auto_draws_where_a_subject_is_missing_or_there_are_others(
    all_of_2018: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "raw"
    shutil.copytree(all_of_2018, root)
    make_subject(root, "Brats18_TCIA99_999_1", label=False)
    assert find(root).split.name == "published-1"
    assert NOT_COMPARABLE not in capsys.readouterr().out
    (root / "Brats18_TCIA99_999_1" / "Brats18_TCIA99_999_1_seg.nii.gz").touch()
    for _ in range(2):
        split = find(root).split
        assert split.name == "seeded, --split-seed 0"
        assert capsys.readouterr().out.count(NOT_COMPARABLE) == 1
        # Next time one of the list's is missing instead.
        shutil.rmtree(root / "Brats18_TCIA99_999_1", ignore_errors=True)
        shutil.rmtree(root / "Brats18_2013_0_1", ignore_errors=True)


def test_what_else_divides_the_subjects_goes_before_auto(
    all_of_2018: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = published_splits("brats2018")["published-3"]
    by_seed = find(all_of_2018, "--split-seed", "1").split
    assert by_seed == find(all_of_2018, "--split", "seeded", "--split-seed", "1").split
    assert by_seed.name == "seeded, --split-seed 1"
    assert find(all_of_2018, "--fold", "0", "--folds", "5").split.name == "--fold 0 --folds 5 --split-seed 0"
    capsys.readouterr()
    (tmp_path / "mine.csv").write_bytes(listed.path.read_bytes())
    own = find(all_of_2018, "--split-file", str(tmp_path / "mine.csv")).split
    assert own == listed.listed
    assert own.name == "--split-file mine.csv"
    assert NOT_COMPARABLE not in capsys.readouterr().out


def test_a_list_that_is_asked_for_leaves_others_out_and_needs_all_of_its_own(
    all_of_2018: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "raw"
    shutil.copytree(all_of_2018, root)
    make_subject(root, "Brats18_TCIA99_999_1")
    source = find(root, "--split", "published-2")
    assert source.split == published_splits("brats2018")["published-2"].listed
    assert "--split published-2; it does not name 1 subjects, left out" in capsys.readouterr().out
    (root / "Brats18_2013_0_1" / "Brats18_2013_0_1_seg.nii.gz").unlink()
    with pytest.raises(UserError, match=r"^--split published-2: 1 of the 285 subjects .*: Brats18_2013_0_1; need all"):
        find(root, "--split", "published-2")


def test_the_data_set_that_is_recognised_has_to_have_the_list(all_of_2018: Path) -> None:
    with pytest.raises(UserError, match=r"^--split: got published, but --dataset brats2018 has published-1, pub"):
        find(all_of_2018, "--split", "published", dataset="auto")
