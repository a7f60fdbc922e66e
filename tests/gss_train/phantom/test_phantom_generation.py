"""What is written when, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gss_train.phantom import generate_phantoms
from gss_train.phantom.__main__ import main

TINY = (24, 28, 24)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def modification_times(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.parametrize("dataset", ["brats2015", "brats2018"])
def test_bytes_depend_on_seed_and_number_alone(tmp_path: Path, dataset: str) -> None:
    few = generate_phantoms(dataset, tmp_path / "few", 2, seed=5, size=TINY, workers=1)
    many = generate_phantoms(dataset, tmp_path / "many", 4, seed=5, size=TINY, workers=3)
    for one, other in zip(few, many[:2], strict=True):
        assert one.relative_to(tmp_path / "few") == other.relative_to(tmp_path / "many")
        assert contents(one) == contents(other)
    assert len({content for folder in many for content in contents(folder).values()}) == 4 * 5


def test_seeds_give_different_heads(tmp_path: Path) -> None:
    first = generate_phantoms("brats2020", tmp_path / "first", 1, seed=0, size=TINY, workers=1)
    second = generate_phantoms("brats2020", tmp_path / "second", 1, seed=1, size=TINY, workers=1)
    assert not set(contents(first[0]).values()) & set(contents(second[0]).values())


def test_folders_are_returned_in_order_with_a_quarter_low_grade(tmp_path: Path) -> None:
    folders = generate_phantoms("brats2018", tmp_path, 4, seed=0, size=TINY, workers=2)
    assert [folder.parent.name for folder in folders] == ["HGG", "HGG", "HGG", "LGG"]
    assert all(folder.is_dir() for folder in folders)
    assert {path.name for path in tmp_path.iterdir()} == {"HGG", "LGG", "phantom.json"}


def test_settings_are_recorded(tmp_path: Path) -> None:
    generate_phantoms("brats2020", tmp_path, 1, seed=7, size=TINY, workers=1)
    settings = json.loads((tmp_path / "phantom.json").read_text(encoding="utf-8"))
    assert settings["generator_version"] >= 1
    expected = {"dataset": "brats2020", "seed": 7, "size": list(TINY), "subjects": 1}
    assert {key: settings[key] for key in expected} == expected


def test_a_complete_phantom_is_left_alone_and_a_partial_one_completed(tmp_path: Path) -> None:
    arguments = {"dataset": "brats2020", "out": tmp_path, "subjects": 2, "seed": 0, "size": TINY, "workers": 1}
    folders = generate_phantoms(**arguments)
    complete, before = contents(tmp_path), modification_times(tmp_path)
    calls: list[tuple[int, int]] = []
    assert generate_phantoms(**arguments, progress=lambda done, total: calls.append((done, total))) == folders
    assert modification_times(tmp_path) == before
    assert calls == [(2, 2)]

    for path in folders[0].iterdir():
        path.unlink()
    folders[0].rmdir()
    (tmp_path / ".partial-left-over").mkdir()
    calls.clear()
    generate_phantoms(**arguments, progress=lambda done, total: calls.append((done, total)))
    assert contents(tmp_path) == complete
    assert not list(tmp_path.glob(".partial-*"))
    assert calls == [(1, 2), (2, 2)]


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("irreplaceable", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"foreign is not empty and not a phantom"):
        generate_phantoms("brats2015", foreign, 1, seed=0, size=TINY)
    assert contents(foreign) == {"thesis.txt": b"irreplaceable"}

    with pytest.raises(FileExistsError, match=r"thesis\.txt is a file"):
        generate_phantoms("brats2015", foreign / "thesis.txt", 1, seed=0, size=TINY)


@pytest.mark.parametrize("record", ['{"seed": 0}', "not json", "[]"])
def test_phantoms_of_other_settings_are_refused(tmp_path: Path, record: str) -> None:
    (tmp_path / "phantom.json").write_text(record, encoding="utf-8")
    with pytest.raises(FileExistsError, match="choose another folder"):
        generate_phantoms("brats2015", tmp_path, 1, seed=0, size=TINY)
    assert contents(tmp_path) == {"phantom.json": record.encode()}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset": "brats1999"}, "dataset: got 'brats1999'"),
        ({"subjects": 0}, "subjects: got 0"),
        ({"seed": -1}, "seed: got -1"),
        ({"size": (24, 24, 8)}, r"size: got \(24, 24, 8\)"),
        ({"size": (24, 24)}, r"size: got \(24, 24\)"),
        ({"workers": 0}, "workers: got 0"),
    ],
)
def test_impossible_requests_name_the_argument(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    arguments = {"dataset": "brats2015", "out": tmp_path / "new", "subjects": 1, "seed": 0, "size": TINY, **changed}
    with pytest.raises(ValueError, match=message):
        generate_phantoms(**arguments)
    assert not (tmp_path / "new").exists()


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = "gss_train.phantom.generate.importlib.util.find_spec"
    monkeypatch.setattr(find_spec, lambda name: None if name == "nilearn" else object())
    with pytest.raises(ModuleNotFoundError, match=r'nilearn: pip install -e "\.\[demo\]"'):
        generate_phantoms("brats2015", tmp_path / "new", 1, seed=0, size=TINY)


def test_a_subject_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, volume: np.ndarray, spacing: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr("gss_train.phantom.generate.write_volume", fail)
    with pytest.raises(OSError, match="disk full"):
        generate_phantoms("brats2020", tmp_path, 2, seed=0, size=TINY, workers=1)
    assert set(contents(tmp_path)) == {"phantom.json"}


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, gss_train.phantom; print(*{'torch', 'nilearn', 'scipy', 'SimpleITK'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_command_line_writes_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = ["--dataset", "brats2020", "--out", str(tmp_path), "--subjects", "1", "--seed", "0", "--workers", "1"]
    assert main([*request, "--size", "24", "28", "24"]) == 0
    assert len(list(tmp_path.rglob("*.nii.gz"))) == 5
    assert "subject 1/1" in capsys.readouterr().out
    assert main([*request, "--size", "24", "28", "26"]) == 2
    assert "choose another folder" in capsys.readouterr().err
