"""Verification and preparation through the command line."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest

from gss_train.common import amount
from gss_train.data import in_use, load_prepared
from gss_train.prepare import main
from tests.gss_train.data.raw_files import make_folded_head, write_subject

SUBJECTS = 12
BAD, SOUND = "BraTS20_Training_001", "BraTS20_Training_012"
SUFFIXES = ("flair", "t1ce", "t1", "t2", "seg")


def rewrite(
    folder: Path,
    suffix: str,
    change: Callable[[np.ndarray], np.ndarray] = lambda voxels: voxels,
    affine: Callable[[np.ndarray], np.ndarray] = lambda affine: affine,
) -> None:
    path = folder / f"{folder.name}_{suffix}.nii"
    image = nib.load(path)
    voxels, place = np.asarray(image.dataobj).copy(), image.affine
    nib.save(nib.Nifti1Image(change(voxels), affine(place)), path)


def cut_short(folder: Path) -> None:
    path = folder / f"{folder.name}_t1.nii"
    path.write_bytes(path.read_bytes()[:2000])


def no_scan(folder: Path) -> None:
    (folder / f"{folder.name}_t1.nii").write_bytes(b"<html>404 Not Found</html>" * 40)


def two_time_points(folder: Path) -> None:
    rewrite(folder, "t1", lambda voxels: np.stack([voxels, voxels], axis=-1))


def cropped(folder: Path) -> None:
    rewrite(folder, "t1", lambda voxels: voxels[:, :-1])


def thick_slices(folder: Path) -> None:
    rewrite(folder, "t1", affine=lambda affine: affine @ np.diag([1, 1, 2.0, 1]))


def moved(folder: Path) -> None:
    rewrite(folder, "seg", affine=lambda affine: affine + np.eye(4)[:, [0]] @ np.array([[0, 0, 0, 7.0]]))


def tilted(folder: Path) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    rewrite(folder, "t1", affine=lambda affine: affine @ turn)


def other_label_values(folder: Path) -> None:
    rewrite(folder, "seg", lambda label: np.where(label == 2, 3, label).astype(np.uint8))


def label_beside_the_brain(folder: Path) -> None:
    def spill(label: np.ndarray) -> np.ndarray:
        label[:3, :3, :3] = 2
        return label

    rewrite(folder, "seg", spill)


def not_a_number(folder: Path) -> None:
    rewrite(folder, "t1", lambda scan: np.where(scan > np.quantile(scan, 0.99), np.nan, scan).astype(np.float32))


def constant(folder: Path) -> None:
    rewrite(folder, "t1", lambda scan: np.full_like(scan, 100))


def all_zero(folder: Path) -> None:
    rewrite(folder, "t1", np.zeros_like)


def nothing_at_all(folder: Path) -> None:
    for suffix in SUFFIXES[:4]:
        rewrite(folder, suffix, np.zeros_like)


def same_scan_twice(folder: Path) -> None:
    shutil.copy(folder / f"{folder.name}_t1.nii", folder / f"{folder.name}_t1ce.nii")


def scan_of_another(folder: Path) -> None:
    shutil.copy(folder.parent / SOUND / f"{SOUND}_t2.nii", folder / f"{folder.name}_t2.nii")


def mirrored_scan(folder: Path) -> None:
    rewrite(folder, "t1", lambda scan: scan[::-1])


def mirrored_label(folder: Path) -> None:
    rewrite(folder, "seg", lambda label: label[::-1])


def displaced_scan(folder: Path) -> None:
    rewrite(folder, "t1", lambda scan: np.roll(scan, 2, 1))


def label_of_another(folder: Path) -> None:
    shutil.copy(folder.parent / SOUND / f"{SOUND}_seg.nii", folder / f"{folder.name}_seg.nii")


def normalised(folder: Path) -> None:
    rewrite(folder, "t1", lambda scan: np.where(scan, (scan - 2000.5) / 300, 0).astype(np.float32))


def not_stripped(folder: Path) -> None:
    rewrite(folder, "t1", lambda scan: scan + 7)


class Case(NamedTuple):
    """What is done to a subject, where it should be found, and what should be said about it."""

    damage: Callable[[Path], None]
    file: str | None
    problem: str
    remedy: str


ERRORS = [
    Case(cut_short, "t1", "cannot be read", "intact copy"),
    Case(no_scan, "t1", "cannot be read", "download or export it again"),
    Case(two_time_points, "t1", "should have three dimensions", "export it again, as one volume"),
    Case(cropped, "t1", r"has shape \(24, 23, 24\), should have \(24, 24, 24\) as FLAIR", "resample it"),
    Case(thick_slices, "t1", r"has voxels of .* mm, should have .* mm as FLAIR", "resample it"),
    Case(moved, "seg", "lies up to 7 mm away from where FLAIR lies: its origin", "copy that of another file"),
    Case(tilted, "t1", "away from where FLAIR lies: its axes point elsewhere", "resample it"),
    Case(other_label_values, "seg", "holds label values 3, should hold only 0, 1, 2, 4", "choose the --dataset"),
    Case(not_a_number, "t1", "voxels are NaN or infinite", "of finite numbers, 0 outside the brain"),
    Case(constant, "t1", "every brain voxel of T1 is 100", "a subject may lack scans"),
    Case(all_zero, "t1", "every brain voxel of T1 is 0", "a subject may lack scans"),
    Case(nothing_at_all, None, "there is no brain: FLAIR, T1ce, T1, T2 are 0 everywhere", "export the scans again"),
    Case(same_scan_twice, "t1", r"T1 has the same voxels as T1ce \(BraTS20_.*_t1ce.nii\)", "put the right scan"),
    Case(not_stripped, "t1", "T1 is 0 in 0.0% of its voxels; its background seems to be 7", "skull-strip it"),
    Case(scan_of_another, "t2", "T2 has the same voxels as T2 of", "take the other subject out"),
]
WARNINGS = [
    Case(label_beside_the_brain, "seg", "of the label .* lie outside the brain", "look at it"),
    Case(mirrored_scan, "t1", "T1 seems mirrored left to right", "compare the files in a viewer"),
    Case(mirrored_label, "seg", "the label seems mirrored left to right", "compare the files in a viewer"),
    Case(displaced_scan, "t1", "T1 does not lie where .* FLAIR, T1ce, T2 lies", "register it with the others"),
    Case(label_of_another, "seg", "the label does not lie where the tumour in the scans lies", "this subject's"),
    Case(normalised, "t1", "T1 is below 0 in .* of its brain", "the scanner's intensities"),
]


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Subjects without faults."""
    root = tmp_path_factory.mktemp("subjects") / "raw"
    for number in range(1, SUBJECTS + 1):
        write_subject(root / f"BraTS20_Training_{number:03}", make_folded_head((24, 24, 24), seed=number), ".nii", 5)
    return root


@pytest.fixture
def root(tmp_path: Path, subjects: Path) -> Path:
    """Two subjects, to be damaged."""
    for name in (BAD, SOUND):
        shutil.copytree(subjects / name, tmp_path / "raw" / name)
    return tmp_path / "raw"


def prepare(root: Path, *arguments: str) -> int:
    """Runs the command with one worker, and asserts that no raw file changes."""
    before = contents(root)
    settings = ["--cache", str(root.parent / "cache"), "--workers", "1"]
    status = main(["--dataset", "brats2020", "--data-root", str(root), *settings, *arguments])
    assert contents(root) == before
    return status


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def prepared_names(root: Path) -> list[str]:
    folder = root.parent / "cache" / "prepared" / "brats2020"
    return [subject.name for subject in load_prepared(folder)]


def assert_listed(case: Case, subject: Path, severity: str, table: str) -> None:
    """One of the subject's rows, with the lines below it, names the file, the problem and the remedy."""
    rows = [" ".join(row.split()) for row in re.split(r"\n(?=\S)", table)]
    folder = next((Path(row.removeprefix("Files in ")) for row in rows if row.startswith("Files in ")), None)
    pattern = rf"{subject.name} (\S+) {severity}: (?:{case.problem}|.* (?:{case.problem})).* -> .*{case.remedy}"
    (match,) = (match for match in (re.match(pattern, row) for row in rows) if match)
    if case.file is None:
        assert match[1] == "-"
    else:
        assert folder is not None
        assert folder / match[1] == subject / f"{subject.name}_{case.file}.nii"


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case.damage.__name__)
def test_errors_stop_and_lose_nothing(case: Case, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(root) == 0
    assert prepared_names(root) == [BAD, SOUND]
    case.damage(root / BAD)
    # Copies are the later one's fault.
    bad, sound = (SOUND, BAD) if case.damage is scan_of_another else (BAD, SOUND)
    capsys.readouterr()
    assert prepare(root, "--check") == 2
    said = capsys.readouterr()
    assert_listed(case, root / bad, "error", said.out)
    # Whose scan it is shows in the one that it does not fit.
    assert f"Verified 2 subjects: 1 with errors, {int(bad == SOUND)} with warnings" in said.out
    assert prepare(root) == 2
    assert_listed(case, root / bad, "error", capsys.readouterr().err)
    assert sound in prepared_names(root)
    assert prepare(root, "--skip-bad") == 0
    said = capsys.readouterr()
    assert_listed(case, root / bad, "error", said.out)
    assert f"Left out 1 subject: {bad}" in said.out
    assert "Prepared 1 subject in" in said.out
    assert sound in prepared_names(root)


@pytest.mark.parametrize("case", WARNINGS, ids=lambda case: case.damage.__name__)
def test_warnings_are_listed_and_stop_nothing(case: Case, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case.damage(root / BAD)
    for arguments in (["--check"], [], []):
        assert prepare(root, *arguments) == 0
        said = capsys.readouterr()
        assert_listed(case, root / BAD, "warning", said.out)
        assert said.err == ""
    assert prepared_names(root) == [BAD, SOUND]


def test_ten_faults_at_once_are_one_table(tmp_path: Path, subjects: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "raw"
    shutil.copytree(subjects, root)
    others = {all_zero, tilted, no_scan, scan_of_another, moved, not_stripped}
    errors = [case for case in ERRORS if case.damage not in others]
    cases = [*((case, "error") for case in errors), (WARNINGS[1], "warning")]
    names = [f"BraTS20_Training_{number:03}" for number in range(1, len(cases) + 1)]
    assert len(cases) == 10
    for name, (case, _) in zip(names, cases, strict=True):
        case.damage(root / name)
    assert prepare(root, "--check") == 2
    said = capsys.readouterr()
    for name, (case, severity) in zip(names, cases, strict=True):
        assert_listed(case, root / name, severity, said.out)
    assert f"Verified {SUBJECTS} subjects: 9 with errors, 1 with warnings" in said.out
    assert said.err == ""
    assert not (tmp_path / "cache").exists()
    assert prepare(root, "--skip-bad") == 0
    assert "Left out 9 subjects: BraTS20_Training_001, " in capsys.readouterr().out
    assert prepared_names(root) == ["BraTS20_Training_010", "BraTS20_Training_011", "BraTS20_Training_012"]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            [f"{BAD},Training", f"{SOUND},Inference", f"{BAD},Inference"],
            f"line 3: {BAD} is there already, in split.csv",
        ),
        ([f"{BAD},Training", "BraTS20_Training_777,Inference"], "BraTS20_Training_777 is no subject of this data set"),
    ],
)
def test_a_split_that_does_not_fit_is_in_the_table(
    lines: list[str], problem: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = tmp_path / "split.csv"
    split.write_text("\n".join(lines))
    not_a_number(root / SOUND)
    assert prepare(root, "--check", "--split-file", str(split)) == 2
    said = capsys.readouterr().out
    assert re.search(r"^\(split\) +split.csv +error: ", said, re.MULTILINE)
    assert problem in " ".join(said.split())
    assert "NaN" in said
    assert "Verified 2 subjects: 1 with errors, 0 with warnings" in said
    assert prepare(root, "--split-file", str(split)) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_published_list_that_does_not_fit_is_in_the_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(root, "--check", "--split", "published") == 2
    assert re.search(r"^\(split\) +brats20\d\d.*csv +error: ", capsys.readouterr().out, re.MULTILINE)
    assert prepare(root, "--split", "published") == 2
    assert "subjects of the published split" in capsys.readouterr().err


def test_a_second_call_has_nothing_left_to_do(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(root) == 0
    first = capsys.readouterr().out
    assert "preparing: 2/2" in first
    assert "Prepared 2 subjects in" in first
    before = contents(root.parent / "cache")
    assert prepare(root) == 0
    assert contents(root.parent / "cache") == before


def test_the_released_box_is_apart_from_the_whole_one(root: Path) -> None:
    assert prepare(root) == prepare(root, "--box", "released") == 0
    folder = root.parent / "cache" / "prepared"
    whole, released = (load_prepared(folder / f"brats2020{box}")[0] for box in ("", "-released"))
    assert (whole.metadata.recipe.released_box, released.metadata.recipe.released_box) == (False, True)


def test_scans_may_be_missing(root: Path) -> None:
    for suffix in ("t1", "t2", "seg"):
        (root / BAD / f"{BAD}_{suffix}.nii").unlink()
    assert prepare(root, "--check") == 0
    assert prepare(root) == 0
    first, second = load_prepared(root.parent / "cache" / "prepared" / "brats2020")
    assert (first.available, first.has_label) == ((True, True, False, False), False)
    assert (second.available, second.has_label) == ((True,) * 4, True)


def test_a_cache_that_cannot_be_written_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root.parent / "cache").write_text("a file, no folder")
    assert prepare(root) == 2
    assert f"error: {root.parent / 'cache'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "brats2020"], "--data-root: is missing"),
        (["--dataset", "brats2020", "--data-root", "raw", "--workers", "0"], "--workers: got 0"),
        (["--dataset", "brats2020", "--data-root", "raw", "--check", "--skip-bad"], "--skip-bad: cannot go with"),
        ([], "--dataset: is missing"),
        (["--clean", "--check"], "--check: cannot go with --clean"),
        (["--clean", "--data-root", "raw"], "--data-root: cannot go with --clean"),
        (["--clean", "--dataset", "auto"], "--dataset: auto cannot go with --clean"),
    ],
)
def test_impossible_settings_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in re.sub(r"[\s│]+", " ", capsys.readouterr().err)


def test_a_missing_folder_shows_the_expected_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(tmp_path / "nowhere", "--check") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'nowhere'}: no such folder")
    assert "BraTS20_Training_NNN/" in said


def clean(root: Path, *arguments: str) -> int:
    return main(["--clean", "--cache", str(root.parent / "cache"), *arguments])


def lines_of(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_what_the_cache_holds_is_listed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = root.parent / "cache"
    for name, size in (("prepared/brats2018-crop80x80x80", 1_300_000_000), ("phantom/brats2018-five/raw", 2_000_000)):
        (cache / name).mkdir(parents=True)
        with (cache / name / "scan.npy").open("wb") as file:
            file.truncate(size)
    assert prepare(root) == prepare(root, "--spacing", "2", "2", "3", "--box", "released") == 0
    sizes = {
        folder.name: sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".jsonl")
        for folder in (cache / "prepared").iterdir()
    }
    coarse = sizes["brats2020-2x2x3mm-released"]
    expected = [
        f"{cache} holds:",
        "prepared/brats2018-crop80x80x80 1.3 GB of an earlier version: not used any more, may be deleted by hand",
        f"prepared/brats2020 {amount(sizes['brats2020'])} 2 subjects, voxels as scanned, whole box",
        f"prepared/brats2020-2x2x3mm-released {amount(coarse)} 2 subjects, voxels of 2 x 2 x 3 mm, released box",
        "phantom/brats2018-five 2 MB scans of a phantom",
        "all together 1.3 GB",
    ]
    assert lines_of(capsys.readouterr().out)[-6:] == expected


def test_cleaning_deletes_what_was_prepared_and_nothing_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = root.parent / "cache"
    assert prepare(root) == prepare(root, "--spacing", "2") == 0
    folder, coarse = cache / "prepared" / "brats2020", cache / "prepared" / "brats2020-2x2x2mm"
    for path in (folder / "notes.txt", cache / "prepared" / "old-crop80" / "a.npy", cache / "phantom" / "a" / "a.nii"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    capsys.readouterr()
    assert clean(root, "--dataset", "brats2018") == 0
    assert lines_of(capsys.readouterr().out) == [f"{cache} holds no prepared files of brats2018"]
    assert len(prepared_names(root)) == 2
    assert clean(root, "--dataset", "brats2020") == 0
    listed, listed_coarse, *said = lines_of(capsys.readouterr().out)
    assert re.fullmatch(rf"{folder}: 4 files, [\d.]+ [kM]B, to be deleted", listed)
    assert re.fullmatch(rf"{coarse}: 6 files, [\d.]+ [kM]B, to be deleted", listed_coarse)
    assert said == [f"Deleted: {folder}, but not what its index does not name: notes.txt", f"Deleted: {coarse}"]
    left = ["phantom/a/a.nii", "prepared/brats2020/notes.txt", "prepared/old-crop80/a.npy"]
    assert sorted(contents(cache)) == left
    assert not coarse.exists()
    assert clean(root) == 0
    assert sorted(contents(cache)) == left


def test_what_is_in_use_is_left_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(root) == prepare(root, "--spacing", "2") == 0
    folder = root.parent / "cache" / "prepared"
    with in_use(folder / "brats2020"):
        assert clean(root) == 2
    assert f"Left alone: {folder / 'brats2020'} is in use" in capsys.readouterr().out
    assert prepared_names(root) == [BAD, SOUND]
    assert not (folder / "brats2020-2x2x2mm").exists()
    assert clean(root) == 0
    assert not (folder / "brats2020").exists()


def test_one_damaged_index_keeps_all_from_being_deleted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(root) == prepare(root, "--spacing", "2") == 0
    index = root.parent / "cache" / "prepared" / "brats2020-2x2x2mm" / "index.jsonl"
    index.write_text(f"{{}}\n{index.read_text()}")
    before = contents(root.parent / "cache")
    capsys.readouterr()
    assert clean(root) == 2
    assert f"error: {index}, line 1: " in capsys.readouterr().err
    assert contents(root.parent / "cache") == before
    assert prepare(root) == 0
    assert f"{index}, line 1: " in capsys.readouterr().out
