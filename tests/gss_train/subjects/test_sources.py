from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from gss_train.common.errors import UserError
from gss_train.config import Config, parse_config
from gss_train.config.options import DataOptions, PhantomOptions
from gss_train.data import DATASETS, Split, SplitError
from gss_train.main import main
from gss_train.phantom import Grid, generate_phantoms
from gss_train.subjects.sources import Source, find_source, resolve_dataset

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
    assert find_source(config, dataset).prepared_folder.name.startswith("brats2021-crop")


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
    assert sorted(source.subjects) == sorted(split.train + source.validation + split.test)


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
    assert list(source.subjects) == list(names(1, 3, 0, 5))
    assert list(find(*arguments, "--validate-every", "0").subjects) == list(names(1, 3, 5))
    assert "does not name 2 subjects, left out" in capsys.readouterr().out
    (tmp_path / "test.txt").write_text("BraTS2021_00006")
    with pytest.raises(UserError, match=r"--split-file: .* names 1 subjects without label: BraTS2021_00006"):
        find(*arguments)
    (tmp_path / "test.txt").write_text("BraTS2021_00009")
    with pytest.raises(SplitError, match="BraTS2021_00009 is no subject"):
        find(*arguments)


def write_manifest(raw: Path, path: Path) -> None:
    """Lists phantoms of BraTS2020, the first one without T2."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("subject", *SUFFIXES))
        for number, folder in enumerate(sorted(raw.glob("BraTS20_*"))):
            files = {suffix: folder.relative_to(path.parent) / f"{folder.name}_{suffix}.nii" for suffix in SUFFIXES}
            writer.writerow((f"patient {number}", *({**files, "t2": ""} if number == 0 else files).values()))
    path.with_name(f"{path.stem}.dataset.json").write_text(json.dumps(FOUR))


def test_custom_data_is_found_through_its_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_files(tmp_path / "raw", range(3))
    rows = [[name, *(f"raw/{name}/{name}_{suffix}.nii.gz" for suffix in SUFFIXES)] for name in names(0, 1, 2)]
    lines = [",".join(row) for row in (("subject", *SUFFIXES), *rows)]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    (tmp_path / "labels.json").write_text(json.dumps(FOUR))
    source = find("--dataset", "custom", "--manifest", tmp_path / "mine.csv", "--categories", tmp_path / "labels.json")
    assert len(source.split.train + source.split.validation + source.split.test) == 3
    assert source.prepared_folder.name.startswith("custom-mine-crop")
    assert f"3 subjects found in {tmp_path / 'mine.csv'}" in capsys.readouterr().out


def test_custom_data_is_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "raw"
    generate_phantoms("brats2020", raw, 4, 1, (24, 24, 24), compressed=False)
    write_manifest(raw, tmp_path / "mine.csv")
    parts = {"train": "patient 0\npatient 1", "val": "patient 2", "test": "patient 3"}
    for part, listed in parts.items():
        (tmp_path / f"{part}.txt").write_text(listed)
    arguments = ["--dataset", "custom", "--manifest", str(tmp_path / "mine.csv"), "--device", "cpu", "--no-gss"]
    arguments += ["--crop-size", "16", "--width", "4", "--epochs", "1", "--steps-per-epoch", "1"]
    arguments += ["--split-file", str(tmp_path), "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert "mine (custom): 4 categories (BG, NCR, ED, ET)" in capsys.readouterr().out
    assert len((tmp_path / "run" / "subsets.md").read_text().splitlines()) == 18
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert split == {"train": ["patient 0", "patient 1"], "validation": ["patient 2"], "test": ["patient 3"]}
    (tmp_path / "mine.dataset.json").write_text("{}")
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "3 faults" in message
    assert "mine.dataset.json: lacks 'leaders'" in message


def test_a_phantom_says_how_large_its_voxels_are() -> None:
    """So that scans are brought to that size before a network that was trained on it sees them."""
    size = (48, 56, 48)
    config = Config(DataOptions("brats2018"), phantom=PhantomOptions(phantom_size=size))
    _, dataset = resolve_dataset(config)
    assert dataset.spacing == (Grid.for_brain(size).spacing,) * 3
    assert dataclasses.replace(dataset, spacing=None) == DATASETS["brats2018"]
