from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from gss_train.common.errors import UserError
from gss_train.config import Config, parse_config
from gss_train.config.options import DataOptions, PhantomOptions
from gss_train.data import DATASETS, Split, SplitError
from gss_train.data.manifest import ManifestError
from gss_train.phantom import Grid
from gss_train.subjects import Source, find_source, prepare_source, resolve_dataset
from tests.gss_train.data.raw_files import make_head, write_subject

SUFFIXES = ("flair", "t1ce", "t1", "t2", "seg")
FOUR = {
    "categories": ["BG", "NCR", "ED", "ET"],
    "label_values": [0, 1, 2, 4],
    "leaders": {"BG": ["FLAIR"], "NCR": ["T1ce"], "ED": ["FLAIR", "T2"], "ET": ["T1ce"]},
}


def make_files(root: Path, numbers: range, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Subjects of BraTS2021 with files that hold nothing."""
    for number in numbers:
        folder = root / f"BraTS2021_{number:05}"
        folder.mkdir(parents=True)
        for suffix in suffixes:
            (folder / f"{folder.name}_{suffix}.nii.gz").touch()


def names(*numbers: int) -> tuple[str, ...]:
    return tuple(f"BraTS2021_{number:05}" for number in numbers)


def find(*arguments: str | Path) -> Source:
    config, dataset = resolve_dataset(parse_config([str(argument) for argument in arguments]))
    return find_source(config, dataset)


def test_auto_says_what_it_found_and_keeps_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_files(tmp_path, range(5))
    config, dataset = resolve_dataset(parse_config(["--dataset", "auto", "--data-root", str(tmp_path)]))
    assert (config.data.dataset, dataset.name) == ("brats2021", "brats2021")
    assert f"Recognised BraTS2021 (brats2021): 5 subjects below {tmp_path}" in capsys.readouterr().out
    assert find_source(config, dataset).raw.prepared_folder.name == "brats2021-4x4x4mm"


def test_unlabelled_subjects_are_counted_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_files(tmp_path, range(6))
    make_files(tmp_path, range(6, 8), SUFFIXES[:-1])
    make_files(tmp_path, range(8, 9), ("t1ce", "seg"))
    source = find("--dataset", "brats2021", "--data-root", tmp_path, "--preset", "paper")
    printed = capsys.readouterr().out
    assert f"9 subjects found in {tmp_path}" in printed
    assert "2 of them have no label, such as BraTS2021_00006: not trained or tested on" in printed
    assert "1 of them lack one to three of the scans" in printed
    split = source.split
    assert sorted(split.train + split.validation + split.test) == list(names(*range(6), 8))
    assert source.used.names == [*split.train, *source.validation, *split.test]


def test_too_few_labelled_subjects_are_an_error(tmp_path: Path) -> None:
    make_files(tmp_path, range(2))
    make_files(tmp_path, range(2, 9), SUFFIXES[:-1])
    with pytest.raises(UserError, match="--data-root: got 2 labelled subjects, need at least 3"):
        find("--dataset", "brats2021", "--data-root", tmp_path)


def test_over_the_folds_every_subject_is_tested_once(tmp_path: Path) -> None:
    make_files(tmp_path, range(7))
    arguments = ("--dataset", "brats2021", "--data-root", tmp_path, "--preset", "paper", "--folds", "3", "--fold")
    splits = [find(*arguments, str(fold)).split for fold in range(3)]
    assert sorted(name for split in splits for name in split.test) == list(names(*range(7)))
    assert all(split.validation and split.train for split in splits)
    with pytest.raises(UserError, match=r"--folds: .*got 7 patients, need at least 8"):
        find("--dataset", "brats2021", "--data-root", tmp_path, "--folds", "8", "--fold", "0")


def test_a_published_split_is_taken_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_files(tmp_path / "raw", range(6))
    make_files(tmp_path / "raw", range(6, 7), SUFFIXES[:-1])
    for part, numbers in (("train", (3, 1)), ("val", (0,)), ("test", (5,))):
        (tmp_path / f"{part}.txt").write_text("\n".join(names(*numbers)))
    arguments = ("--dataset", "auto", "--data-root", tmp_path / "raw", "--split-file", tmp_path)
    source = find(*arguments)
    assert source.split == Split(names(1, 3), names(0), names(5))
    assert source.used.names == list(names(1, 3, 0, 5))
    assert find(*arguments, "--validate-every", "0").used.names == list(names(1, 3, 5))
    assert "does not name 2 subjects, left out" in capsys.readouterr().out
    (tmp_path / "test.txt").write_text("BraTS2021_00006")
    with pytest.raises(UserError, match=r"--split-file: .* names 1 subjects without label: BraTS2021_00006"):
        find(*arguments)
    (tmp_path / "test.txt").write_text("BraTS2021_00009")
    with pytest.raises(SplitError, match="BraTS2021_00009 is no subject"):
        find(*arguments)


def test_custom_data_is_found_through_its_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_files(tmp_path / "raw", range(3))
    rows = [[name, *(f"raw/{name}/{name}_{suffix}.nii.gz" for suffix in SUFFIXES)] for name in names(0, 1, 2)]
    lines = [",".join(row) for row in (("subject", *SUFFIXES), *rows)]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    (tmp_path / "labels.json").write_text(json.dumps(FOUR))
    source = find("--dataset", "custom", "--manifest", tmp_path / "mine.csv", "--categories", tmp_path / "labels.json")
    assert len(source.split.train + source.split.validation + source.split.test) == 3
    assert source.raw.prepared_folder.name == "custom-mine-4x4x4mm"
    assert f"3 subjects found in {tmp_path / 'mine.csv'}" in capsys.readouterr().out


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str | Path]:
    """Arguments for a data set of one's own: four subjects, the first without T2, and their split."""
    # One processor: worker processes would take seconds to start.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    lines = [",".join(("subject", *SUFFIXES))]
    for number in range(4):
        folder = tmp_path / "raw" / f"scans of {number}"
        write_subject(folder, make_head((24, 24, 24), seed=number), ".nii")
        files = {suffix: f"raw/{folder.name}/{folder.name}_{suffix}.nii" for suffix in SUFFIXES}
        lines.append(",".join((f"patient {number}", *({**files, "t2": ""} if number == 0 else files).values())))
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    (tmp_path / "mine.dataset.json").write_text(json.dumps(FOUR))
    for part, listed in {"train": "patient 0\npatient 1", "val": "patient 2", "test": "patient 3"}.items():
        (tmp_path / f"{part}.txt").write_text(listed)
    arguments: list[str | Path] = ["--dataset", "custom", "--manifest", tmp_path / "mine.csv", "--split-file", tmp_path]
    return [*arguments, "--spacing", "None", "--crop-size", "16", "--cache", tmp_path / "cache"]


def test_another_crop_size_prepares_nothing(custom: list[str | Path], capsys: pytest.CaptureFixture[str]) -> None:
    def stamps(crop_size: int) -> dict[str, int]:
        source, preparation = prepare_source(find(*custom, "--crop-size", str(crop_size)), skip_bad=False)
        assert all(min(subject.padded_to((crop_size,) * 3).shape) >= crop_size for subject in preparation.subjects)
        return {path.name: path.stat().st_mtime_ns for path in source.raw.prepared_folder.iterdir()}

    first = stamps(16)
    capsys.readouterr()
    assert stamps(48) == first
    assert "preparing: 4/4" in capsys.readouterr().out


def test_custom_data_is_prepared(custom: list[str | Path], tmp_path: Path) -> None:
    source, preparation = prepare_source(find(*custom), skip_bad=False)
    assert source.raw.dataset.title == "mine (custom)"
    assert source.raw.dataset.categories == ("BG", "NCR", "ED", "ET")
    assert source.split == Split(("patient 0", "patient 1"), ("patient 2",), ("patient 3",))
    first, *others = preparation.subjects
    assert first.available == (True, True, True, False)
    assert all(subject.available == (True,) * 4 for subject in others)
    for subject in preparation.subjects:
        assert subject.has_label
        assert set(np.unique(subject.open()["label"])) == {0, 1, 2, 3}
    (tmp_path / "mine.dataset.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"3 faults\n(.*\n)*.*mine.dataset.json: lacks 'leaders'"):
        find(*custom)


def test_bad_subjects_are_left_out_of_the_split(
    custom: list[str | Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def damage(number: int) -> None:
        name = f"scans of {number}"
        (tmp_path / "raw" / name / f"{name}_t1.nii").write_bytes(b"cut short")

    damage(1)
    source = find(*custom)
    with pytest.raises(UserError, match="1 of 4 subjects cannot be used"):
        prepare_source(source, skip_bad=False)
    left, preparation = prepare_source(source, skip_bad=True)
    assert left.split == Split(("patient 0",), ("patient 2",), ("patient 3",))
    assert [subject.name for subject in preparation.subjects] == ["patient 0", "patient 2", "patient 3"]
    assert "--skip-bad: 1 of 4 subjects left out: patient 1" in capsys.readouterr().out
    damage(3)
    with pytest.raises(UserError, match="--skip-bad: leaves 1 training and 0 test subjects, need one of each"):
        prepare_source(source, skip_bad=True)


def test_a_phantom_says_how_large_its_voxels_are() -> None:
    """So that scans are brought to that size before a network that was trained on it sees them."""
    size = (48, 56, 48)
    config = Config(DataOptions("brats2018"), phantom=PhantomOptions(phantom_size=size))
    _, dataset = resolve_dataset(config)
    assert dataset.spacing == (Grid.for_brain(size).spacing,) * 3
    assert dataclasses.replace(dataset, spacing=None) == DATASETS["brats2018"]
