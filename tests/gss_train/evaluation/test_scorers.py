"""Scores come out the same wherever they are computed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gss_train.common import UserError
from gss_train.data import DATASETS, PreparedSubject
from gss_train.data.prepared import TruthGrid
from gss_train.evaluation import scorers
from gss_train.evaluation.metrics import MEASURES
from gss_train.evaluation.scorers import Scorers
from gss_train.evaluation.scoring import evaluate_subsets
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.inference.windows import SlidingWindow
from tests.gss_train.inference.networks import BrightestModality
from tests.gss_train.training.voxelwise import make_subject

BRATS = DATASETS["brats2018"]
HD95 = ("dice", "hd95_mm")


def with_noise(folder: Path, number: int, **changes: object) -> PreparedSubject:
    """Predictions of the brightest modality are then noise, and so is the truth."""
    subject = make_subject(folder, f"subject-{number}", number, size=8)
    voxels = np.load(subject.path)
    generator = np.random.default_rng(number)
    voxels["image"] = generator.standard_normal(voxels["image"].shape)
    voxels["label"] = generator.integers(0, 4, voxels.shape) * (generator.random(voxels.shape) < 0.3)
    np.save(subject.path, voxels)
    return dataclasses.replace(subject, metadata=dataclasses.replace(subject.metadata, **changes))


def without_tumour(subject: PreparedSubject) -> PreparedSubject:
    voxels = np.load(subject.path)
    voxels["label"] = 0
    np.save(subject.path, voxels)
    return subject


def with_a_finer_truth(subject: PreparedSubject) -> PreparedSubject:
    """Of voxels of half the length, without those at the edges."""
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    own = TruthGrid((16, 16, 16), tuple(map(tuple, affine.tolist())), ((2, 14),) * 3)
    truth = np.random.default_rng(9).integers(0, 4, (12, 12, 12)).astype(np.uint8)
    np.save(subject.path.with_name(f"{subject.name}.truth.npy"), truth)
    return dataclasses.replace(subject, metadata=dataclasses.replace(subject.metadata, truth=own))


@pytest.fixture
def subjects(tmp_path: Path) -> list[PreparedSubject]:
    return [
        with_noise(tmp_path, 0),
        with_noise(tmp_path, 1, available=(True, False, True, True), spacing=(1.0, 2.0, 3.0)),
        without_tumour(with_noise(tmp_path, 2)),
        with_a_finer_truth(with_noise(tmp_path, 3)),
    ]


def evaluate(subjects: list[PreparedSubject], workers: int) -> tuple[SubsetScores, list[str]]:
    order: list[str] = []
    scores = evaluate_subsets(
        BrightestModality(),
        subjects,
        BRATS,
        SlidingWindow((4, 4, 4)),
        torch.device("cpu"),
        lambda *_: None,
        measures=MEASURES,
        on_scores=lambda subject, _: order.append(subject.name),
        workers=workers,
    )
    return scores, order


def start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers, "_WORTH_SECONDS", 0)


def test_other_processes_come_to_the_same_scores_to_the_bit(
    subjects: list[PreparedSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = evaluate(subjects, workers=1)
    submitted = []

    class Watched(scorers.ProcessPoolExecutor):
        def __init__(self, _workers, **options):
            super().__init__(1, **options)  # each takes seconds to import what it needs

        def submit(self, function, /, *arguments, **options):
            submitted.append(function)
            return super().submit(function, *arguments, **options)

    monkeypatch.setattr(scorers, "ProcessPoolExecutor", Watched)
    start_at_once(monkeypatch)
    found, order = evaluate(subjects, workers=2)
    # All but the first ones, and what the second subject lacks a scan for.
    assert len(submitted) == 15 * len(subjects) - 8 - scorers._FEWEST_TIMED
    assert sorted(order) == [subject.name for subject in subjects]
    assert found.names == expected.names
    for name, values in found.measures.items():
        assert torch.equal(values.nan_to_num(-1), expected.measures[name].nan_to_num(-1)), name
    # Of noise, so that each number is one of its own.
    assert len(found.measures["hd95_mm"].unique()) > 15


def submit(scores: Scorers, count: int) -> None:
    volume = torch.zeros(2, 2, 2, dtype=torch.uint8)
    for _ in range(count):
        scores.submit(volume, volume, (1.0, 1.0, 1.0))


def test_a_killed_process_is_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    start_at_once(monkeypatch)
    # Else it would import PyTorch before.
    monkeypatch.setattr(scorers, "_begin", os.getpid)

    def score() -> None:
        with Scorers(BRATS, HD95, 100, workers=2) as scores:
            submit(scores, scorers._FEWEST_TIMED)
            assert scores._pool is not None
            scores._pool.submit(os._exit, 1).result()

    with pytest.raises(UserError, match=r"one of the 2 processes that compute HD95 was killed.*--workers 1"):
        score()


@pytest.mark.parametrize(
    ("measures", "cases", "workers", "seconds"),
    [(("dice", "precision"), 100, 2, 0.0), (HD95, 100, 1, 0.0), (HD95, 100, 2, 60.0), (HD95, 5, 2, 0.0)],
    ids=["without HD95", "one process", "soon done", "nothing left"],
)
def test_processes_are_started_where_they_are_worth_it_alone(
    measures: tuple[str, ...], cases: int, workers: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "_WORTH_SECONDS", seconds)
    monkeypatch.setattr(scorers, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("started"))
    with Scorers(BRATS, measures, cases, workers) as scores:
        submit(scores, 5)
