"""An evaluation's folder is replaced as a whole or not at all, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gss_train.common.errors import UserError
from gss_train.evaluation.output_folder import check_output, default_output, open_replacing_folder


def fill(folder: Path, version: str, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(version)


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """An earlier evaluation, with a file of the user's own."""
    folder = tmp_path / "evaluation"
    fill(folder, "old", "scores.json", "table.md", "subjects/a.npz", "subjects/b.npz", "figures/bars.png", "notes.txt")
    return folder


def test_a_complete_evaluation_takes_the_place_of_the_earlier_one(earlier: Path) -> None:
    with open_replacing_folder(earlier) as folder:
        fill(folder, "new", "scores.json", "subjects/b.npz")
        assert content(earlier)["scores.json"] == "old"
    assert content(earlier) == {"scores.json": "new", "subjects/b.npz": "new", "notes.txt": "old"}
    assert list(earlier.parent.iterdir()) == [earlier]


def test_an_incomplete_one_leaves_the_earlier_one_alone(earlier: Path) -> None:
    def be_interrupted() -> None:
        with open_replacing_folder(earlier) as folder:
            fill(folder, "new", "subjects/a.npz")
            raise KeyboardInterrupt

    before = content(earlier)
    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert content(earlier) == before
    assert list(earlier.parent.iterdir()) == [earlier]


def test_the_folder_is_made(tmp_path: Path) -> None:
    with open_replacing_folder(tmp_path / "new" / "evaluation") as folder:
        fill(folder, "new", "scores.json")
    assert content(tmp_path) == {"new/evaluation/scores.json": "new"}


def test_only_evaluations_are_replaced(earlier: Path, tmp_path: Path) -> None:
    check_output(earlier)
    check_output(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    fill(tmp_path / "holiday", "mine", "beach.jpg")
    for path in (tmp_path / "file", tmp_path / "holiday"):
        with pytest.raises(UserError, match=f"^--output: {path} exists and is not an empty folder or an evaluation"):
            check_output(path)


def test_by_default_it_is_with_the_network_and_says_what_is_different(tmp_path: Path) -> None:
    assert default_output(tmp_path, []) == tmp_path / "evaluation"
    assert default_output(tmp_path, ["train", "flips"]) == tmp_path / "evaluation-train-flips"
    assert default_output(tmp_path / "RFNet.v2.pth", ["gaussian"]) == tmp_path / "RFNet.v2-evaluation-gaussian"
