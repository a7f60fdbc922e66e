"""An evaluation of small subjects by a network of three layers, which counts how often it is asked."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gss_train.data import DATASETS, PreparedSubject
from gss_train.evaluation import Evaluation, Job, SegmentedSubject, evaluate_job, folder as evaluation_folder
from gss_train.inference import SlidingWindow
from tests.gss_train.training.voxelwise import VoxelwiseNetwork, make_subject

COUNT = 4
WINDOWS = 8  # of each subject: an axis of 6 has two of 4
VIEWED = 2


class CountingNetwork(VoxelwiseNetwork):
    """Knows how many windows it has seen."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__()
        self.windows = 0

    def encode(self, x: Tensor, available: Tensor | None = None) -> tuple[Tensor, ...]:
        self.windows += 1
        return super().encode(x, available)


def make_subjects(folder: Path, count: int = COUNT) -> list[PreparedSubject]:
    """The second one lacks T1ce."""
    folder.mkdir(parents=True, exist_ok=True)
    subjects = [make_subject(folder, f"subject-{number}", number, size=6) for number in range(count)]
    metadata = dataclasses.replace(subjects[1].metadata, available=(True, False, True, True))
    subjects[1] = dataclasses.replace(subjects[1], metadata=metadata)
    return subjects


def make_job(subjects: list[PreparedSubject], **changes: Any) -> Job:
    job = Job(
        "run",
        CountingNetwork().eval(),
        subjects,
        DATASETS["brats2018"],
        SlidingWindow((4, 4, 4)),
        torch.device("cpu"),
        ("dice", "precision"),
        {"network": "voxelwise", "precision": "float32", "weights": "last"},
        VIEWED,
        1,
    )
    return dataclasses.replace(job, **changes)


def draw(folder: Path, evaluation: Evaluation, segmented: list[SegmentedSubject]) -> None:
    """A figure of few bytes."""
    folder.mkdir()
    (folder / "bars.svg").write_text(f"{evaluation.name} {len(segmented)}")


_make_once = cache(make_subjects)


def live(output: Path, subjects: str) -> None:
    """Carry out the job, from wherever it is; of two subjects, and with intervals that take no time."""
    evaluation_folder.interval_of = lambda scores, measure: (scores.means_of(measure),) * 2
    window = SlidingWindow((6, 6, 6))
    job = make_job(_make_once(Path(subjects), 2), viewed=1, measures=("dice",), window=window)
    evaluate_job(job, output / "evaluation", draw=draw)
