from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gss_train.common.processes import ALONE, Processes
from gss_train.data import DATASETS, MODALITY_SUBSETS, PreparedSubject
from gss_train.evaluation.metrics import MEASURES, SCORES, region_measures
from gss_train.evaluation.scoring import Keep, evaluate_subsets, read_subject
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.inference.windows import SlidingWindow
from tests.gss_train.inference.networks import BrightestModality
from tests.gss_train.training.voxelwise import make_subject

TWO_MEASURES = ("dice", "precision")
FLAIR_ALONE, ALL, T1CE_ALONE = (True, False, False, False), (True,) * 4, (False, True, False, False)


def write_subjects(folder: Path, *available: tuple[bool, ...], spacing: float = 1.0) -> list[PreparedSubject]:
    """One subject for each of the flags."""
    subjects = [make_subject(folder, f"subject-{number}", number, size=6) for number in range(len(available))]
    return [
        dataclasses.replace(
            subject, metadata=dataclasses.replace(subject.metadata, available=flags, spacing=(spacing,) * 3)
        )
        for subject, flags in zip(subjects, available, strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class Together(Processes):
    """A process among others, whose summands are known beforehand; keeps its own."""

    others: tuple[Tensor, ...] = ()
    own: list[Tensor] = dataclasses.field(default_factory=list)

    def sum(self, values: Tensor) -> Tensor:
        self.own.append(values)
        return sum(self.others, values)


def evaluate(
    subjects: list[PreparedSubject],
    subsets: Sequence[Sequence[bool]] = MODALITY_SUBSETS,
    processes: Processes = ALONE,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    measures: Sequence[str] = ("dice",),
    keep: Keep | None = None,
    **options: Any,
) -> SubsetScores:
    return evaluate_subsets(
        BrightestModality(),
        subjects,
        DATASETS["brats2018"],
        SlidingWindow((4, 4, 4)),
        torch.device("cpu"),
        progress,
        subsets=subsets,
        processes=processes,
        measures=measures,
        keep=keep,
        **options,
    )


def summand(subjects: list[PreparedSubject], rank: int, size: int) -> Tensor:
    """What a process adds to the table."""
    process = Together(rank, size)
    evaluate(subjects, processes=process, measures=TWO_MEASURES)
    (values,) = process.own
    return values


@pytest.mark.parametrize("size", [2, 3, 5])
def test_several_processes_come_to_exactly_the_same_table(tmp_path: Path, size: int) -> None:
    lacking = (True, False, True, True)
    subjects = write_subjects(tmp_path, ALL, lacking, ALL, lacking)
    alone = evaluate(subjects, measures=TWO_MEASURES)
    assert alone.dice[1].isnan().any()
    summands = [summand(subjects, rank, size) for rank in range(size)]
    for rank in range(size):
        assert (summands[rank][[number for number in range(4) if number % size != rank]] == 0).all()
        others = tuple(values for other, values in enumerate(summands) if other != rank)
        together = evaluate(subjects, processes=Together(rank, size, others=others), measures=TWO_MEASURES)
        assert together.subjects == alone.subjects
        assert tuple(together.measures) == TWO_MEASURES
        for name, values in together.measures.items():
            assert values.dtype == torch.float64
            assert torch.equal(values.nan_to_num(-1), alone.measures[name].nan_to_num(-1))


@pytest.mark.parametrize(("rank", "own"), [(0, 2), (1, 1), (3, 0)])
def test_each_process_reports_the_windows_of_its_own_subjects(tmp_path: Path, rank: int, own: int) -> None:
    subjects = write_subjects(tmp_path, ALL, ALL, ALL)
    reports: list[tuple[int, int, str]] = []
    size = 4 if rank == 3 else 2
    evaluate(subjects, processes=Together(rank, size), progress=lambda *report: reports.append(report))
    # Windows of 4 overlap by half: an axis of 6 has two of them.
    windows = 8 * own
    assert sorted({done for done, _, _ in reports}) == list(range(windows + 1))
    assert [done for done, _, _ in reports] == sorted(done for done, _, _ in reports)
    assert {total for _, total, _ in reports} == {windows}
    assert reports[-1][2] == f"{own} of {own} subjects scored"


def test_what_is_known_is_neither_segmented_nor_changed(tmp_path: Path) -> None:
    """Whichever process knows it, the others learn it from the first one."""
    subjects = write_subjects(tmp_path, ALL, (True, False, True, True), ALL)
    expected = evaluate(subjects, measures=TWO_MEASURES)
    row = torch.stack([expected.measures[name][1] for name in TWO_MEASURES])
    kept: list[str] = []
    found: list[tuple[str, int]] = []
    scores = evaluate(
        subjects,
        measures=TWO_MEASURES,
        keep=lambda subject, *_: kept.append(subject.name),
        known={subjects[1].name: row},
        on_scores=lambda subject, _: found.append((subject.name, len(kept))),
    )
    assert kept == [subjects[0].name, subjects[2].name]
    # Each as soon as it is there.
    assert found == [(subjects[0].name, 1), (subjects[2].name, 2)]
    for name, values in scores.measures.items():
        assert torch.equal(values.nan_to_num(-1), expected.measures[name].nan_to_num(-1))


def test_the_subsets_asked_for_are_scored_in_their_order(tmp_path: Path) -> None:
    subjects = write_subjects(tmp_path, ALL, ALL)
    everything = evaluate(subjects)
    chosen = (ALL, FLAIR_ALONE)
    scores = evaluate(subjects, chosen)
    assert scores.subsets == chosen
    assert torch.equal(scores.dice, everything.dice[:, [MODALITY_SUBSETS.index(subset) for subset in chosen]])
    assert torch.equal(scores.overall, scores.dice.mean(dim=(0, 1)))


def test_a_subject_without_the_scans_of_any_subset_has_no_scores(tmp_path: Path) -> None:
    scores = evaluate(write_subjects(tmp_path, FLAIR_ALONE, ALL), [T1CE_ALONE])
    assert scores.dice.isnan().all(dim=(1, 2)).tolist() == [True, False]
    assert torch.equal(scores.mean, scores.dice[1])


def test_post_processed_scores_need_millimetre_voxels(tmp_path: Path) -> None:
    subjects = write_subjects(tmp_path, ALL, spacing=2.0)
    assert evaluate(subjects, [ALL]).names == SCORES[:3]
    assert evaluate(subjects, [ALL]).dice.shape == (1, 1, 3)


def test_measures_are_those_of_the_predictions_that_are_kept(tmp_path: Path) -> None:
    """In millimetres, of voxels that are not cubes; without what the second subject lacks a scan for."""
    spacing = (1.0, 2.0, 3.0)
    first, second = (
        dataclasses.replace(subject, metadata=dataclasses.replace(subject.metadata, spacing=spacing))
        for subject in write_subjects(tmp_path, ALL, (True, False, True, True))
    )
    kept: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    subsets = (T1CE_ALONE, FLAIR_ALONE)
    scores = evaluate(
        [first, second],
        subsets,
        measures=MEASURES,
        keep=lambda subject, *volumes: kept.update({subject.name: volumes}),
    )
    assert list(kept) == [first.name, second.name]
    for number, subject in enumerate((first, second)):
        image, truth, predictions = kept[subject.name]
        assert all(map(torch.equal, (image, truth), read_subject(subject)))
        assert (predictions.dtype, predictions.shape) == (torch.uint8, (2, *truth.shape))
        for place, prediction in enumerate(predictions):
            if subject is second and place == 0:
                assert not prediction.any()
                assert all(values[number, place].isnan().all() for values in scores.measures.values())
                continue
            expected = region_measures(prediction, truth, "brats2018", spacing)
            for name, values in scores.measures.items():
                assert torch.equal(values[number, place], expected[name][:3])


def test_each_process_keeps_its_own_subjects(tmp_path: Path) -> None:
    subjects = write_subjects(tmp_path, ALL, ALL, ALL)
    kept: list[str] = []
    evaluate(subjects, [ALL], processes=Together(1, 2), keep=lambda subject, *_: kept.append(subject.name))
    assert kept == [subjects[1].name]
