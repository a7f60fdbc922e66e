"""What an evaluation leaves can be read again; its folder is replaced as a whole or not at all, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gss_train.common.errors import UserError
from gss_train.data import DATASETS, MODALITY_SUBSETS, PreparedSubject
from gss_train.evaluation.folder import (
    Evaluation,
    read_evaluation,
    read_segmented,
    refuse_taken,
    replace_evaluation,
    unfinished_folder,
    write_evaluation,
    write_segmented,
)
from gss_train.evaluation.intervals import interval_of
from gss_train.evaluation.metrics import MEASURES, SCORES
from gss_train.evaluation.subset_scores import SubsetScores
from tests.gss_train.training.voxelwise import make_subject


@pytest.fixture
def evaluation() -> Evaluation:
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.rand(3, 15, 4, generator=generator, dtype=torch.float64) for name in MEASURES}
    for table in values.values():
        table[1, :4] = torch.nan
    scores = SubsetScores(("a", "b", "c"), SCORES, values)
    return Evaluation("run", DATASETS["brats2015"], scores, {"network": "rfnet", "crop_size": [16, 16, 16]})


def test_what_is_written_is_read(evaluation: Evaluation, tmp_path: Path) -> None:
    write_evaluation(tmp_path, evaluation)
    assert {path.name for path in tmp_path.iterdir()} == {"scores.json", "subjects.csv", "table.csv", "table.md"}
    found = read_evaluation(tmp_path)
    assert (found.name, found.dataset, found.settings) == ("run", evaluation.dataset, evaluation.settings)
    assert (found.scores.subjects, found.scores.names) == (("a", "b", "c"), SCORES)
    assert found.scores.subsets == MODALITY_SUBSETS
    assert tuple(found.scores.measures) == tuple(MEASURES)
    for name, values in evaluation.scores.measures.items():
        assert torch.equal(found.scores.measures[name].nan_to_num(-1), values.nan_to_num(-1))


def test_scores_can_be_used_without_this_package(evaluation: Evaluation, tmp_path: Path) -> None:
    """They have their units, means and intervals, and are JSON as the standard has it."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    write_evaluation(tmp_path, evaluation)
    content = json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)
    assert [content["measures"][name]["unit"] for name in MEASURES] == ["1", "mm", "1", "1"]
    low, high = interval_of(evaluation.scores, "hd95_mm")
    table = content["measures"]["hd95_mm"]
    assert table["values"][1][3] == [None] * 4
    np.testing.assert_allclose(table["low"], low, atol=1e-9)
    np.testing.assert_allclose(table["high"], high, atol=1e-9)
    np.testing.assert_allclose(table["mean"][-1], evaluation.scores.means_of("hd95_mm")[-1], atol=1e-9)


def truncate(text: str) -> str:
    return text[: len(text) // 2]


def with_values(**values: Any) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), **values})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, ""),
        (lambda _: "[]", ""),
        (with_values(version=2), "version is 2, should be 1"),
        (with_values(subjects=["a", "b"]), "reshape"),
        (with_values(subsets=["T3"]), "'T3'"),
        (with_values(measures={}), "no Dice"),
        (with_values(dataset={}), "categories|leaders"),
    ],
    ids=["cut", "no object", "version", "subjects", "subsets", "measures", "dataset"],
)
def test_scores_that_cannot_be_understood_are_named(
    evaluation: Evaluation, tmp_path: Path, damage: Callable[[str], str], said: str
) -> None:
    write_evaluation(tmp_path, evaluation)
    path = tmp_path / "scores.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=rf"^{path}: cannot be read, need .*{said}"):
        read_evaluation(tmp_path)


def test_missing_scores_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path / 'scores.json'}: "):
        read_evaluation(tmp_path)


@pytest.fixture
def subject(tmp_path: Path) -> PreparedSubject:
    """With voxels twice as far apart along the last axis, and without T1."""
    subject = make_subject(tmp_path, "patient", 0, size=6)
    available, background = (True, True, False, True), (-1.0, -0.3, -1.0, -1.0)
    metadata = dataclasses.replace(
        subject.metadata, available=available, spacing=(1.0, 1.0, 2.0), background=background
    )
    return dataclasses.replace(subject, metadata=metadata)


@pytest.fixture
def image(subject: PreparedSubject) -> Tensor:
    """Noise in a brain that leaves the first and last planes; with a voxel far brighter than the others."""
    noise = torch.randn(4, 6, 8, 10, generator=torch.Generator().manual_seed(0))
    noise[:, 2, 2, 2] = 1e3
    for scan, background in zip(noise, subject.background, strict=True):
        scan[[0, -1]] = torch.tensor(background).half().float()
    return noise.half().float()


def labels(*shape: int) -> Tensor:
    return torch.randint(4, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_subjects_to_look_at_are_read_in_the_order_of_their_names(
    subject: PreparedSubject, image: Tensor, tmp_path: Path
) -> None:
    truth, predictions = labels(6, 8, 10), labels(15, 6, 8, 10)
    for name in ("b", "a"):
        write_segmented(tmp_path, dataclasses.replace(subject, name=name), image, truth, predictions)
    first, second = read_segmented(tmp_path)
    assert (first.name, second.name) == ("a", "b")
    assert np.array_equal(first.truth, truth)
    assert np.array_equal(first.predictions, predictions)
    assert first.available.tolist() == [True, True, False, True]
    assert first.spacing.tolist() == [1, 1, 2]
    assert read_segmented(tmp_path / "elsewhere") == []


def test_scans_to_look_at_use_all_greys_of_the_brain(subject: PreparedSubject, image: Tensor, tmp_path: Path) -> None:
    write_segmented(tmp_path, subject, image, labels(6, 8, 10), labels(1, 6, 8, 10))
    (found,) = read_segmented(tmp_path)
    assert found.image.dtype == np.uint8
    assert not found.image[2].any()
    for number in (0, 1, 3):
        shown, scan = found.image[number], image[number].numpy()
        assert not shown[[0, -1]].any()
        brain = shown[1:-1]
        assert (brain.min(), brain.max()) == (1, 255)
        # In spite of the voxel that is far brighter.
        assert 90 < np.median(brain) < 170
        order = np.argsort(scan[1:-1], axis=None)
        assert (np.diff(brain.ravel()[order].astype(int)) >= 0).all()


def test_the_same_subject_is_the_same_file_at_another_time(
    subject: PreparedSubject, image: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "subjects" / "patient.npz"
    contents = []
    for year in (2001, 2031):
        moment = time.strptime(str(year), "%Y")
        monkeypatch.setattr(time, "localtime", lambda *_, moment=moment: moment)
        write_segmented(tmp_path, subject, image, labels(6, 8, 10), labels(1, 6, 8, 10))
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # In the voxels of the first array.
    content[200] ^= 0xFF
    path.write_bytes(content)


def other_shape(path: Path) -> None:
    with np.load(path) as content:
        np.savez(path, **{**content, "truth": np.zeros((6, 8, 9), np.uint8)})


def other_type(path: Path) -> None:
    with np.load(path) as content:
        np.savez(path, **{**content, "truth": np.zeros((6, 8, 10), np.float32)})


def objects(path: Path) -> None:
    with np.load(path) as content:
        np.savez(path, **{**content, "truth": np.array([None])})


def other_arrays(path: Path) -> None:
    np.savez(path, scan=np.zeros(3))


@pytest.mark.parametrize("damage", [cut, alter, other_shape, other_type, objects, other_arrays])
def test_a_damaged_subject_is_named(
    subject: PreparedSubject, image: Tensor, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    write_segmented(tmp_path, subject, image, labels(6, 8, 10), labels(15, 6, 8, 10))
    path = tmp_path / "subjects" / "patient.npz"
    damage(path)
    with pytest.raises(UserError, match=rf"^{path}: cannot be read, need a subject"):
        read_segmented(tmp_path)


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
    complete = unfinished_folder(earlier)
    fill(complete, "new", "scores.json", "subjects/b.npz", "scores/b.json")
    replace_evaluation(earlier, complete)
    assert content(earlier) == {"scores.json": "new", "subjects/b.npz": "new", "notes.txt": "old"}


def test_the_scores_come_last_and_go_first(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds them finds all else as well."""
    complete = unfinished_folder(earlier)
    fill(complete, "new", "scores.json", "table.md", "subjects/b.npz", "figures/bars.png")
    steps: list[str] = []
    for name in ("unlink", "replace"):
        method = getattr(Path, name)

        def look(path: Path, *arguments: Any, method: Callable[..., Any] = method, **options: Any) -> Any:
            steps.append(path.name)
            return method(path, *arguments, **options)

        monkeypatch.setattr(Path, name, look)
    replace_evaluation(earlier, complete)
    assert steps[0] == steps[-1] == "scores.json"


@pytest.mark.parametrize("path", [".", "inner/.."])
def test_it_is_written_beside_wherever_a_path_leads(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scores" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "scores")
    assert unfinished_folder(Path(path)) == tmp_path / ".scores.unfinished"


def test_only_evaluations_are_replaced(earlier: Path, tmp_path: Path) -> None:
    refuse_taken(earlier)
    refuse_taken(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    refuse_taken(tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    fill(tmp_path / "holiday", "mine", "beach.jpg")
    fill(tmp_path / "half", "mine", "subjects/a.npz")
    for path in (tmp_path / "file", tmp_path / "holiday", tmp_path / "half"):
        with pytest.raises(UserError, match=f"^--output: {path} exists and is not an empty folder or an evaluation"):
            refuse_taken(path)
    # Of one that was killed while it took its place.
    unfinished_folder(tmp_path / "half").mkdir()
    refuse_taken(tmp_path / "half")
