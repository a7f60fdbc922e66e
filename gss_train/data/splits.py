"""Divides the subjects of a data set into training, validation and test."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gss_train.data.datasets import Subject

_Patient = list[Subject]


@dataclass(frozen=True)
class Split:
    """Names of the subjects for each purpose, each in alphabetical order.

    Attributes:
        train: those to train on.
        validation: those to validate on.
        test: those to score.
        name: which split it is, such as "published-1" or "seeded, --split-seed 0"; empty where that is not known.
            Splits into the same parts are equal whatever their names are.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    name: str = field(default="", compare=False)


def split_subjects(
    subjects: Sequence[Subject], proportions: tuple[int, int, int], seed: int, minimum_test: int = 1
) -> Split:
    """Divides subjects at random in the given proportions.

    It is patients that are divided and counted, so that none is in two parts, and each part gets its share of every
    grade, to within one or two. With as many patients as `proportions` counts, the parts have exactly those sizes. The
    result does not depend on the order of the subjects.

    Args:
        subjects: with different names.
        proportions: of training, validation and test, such as the published sizes of a split.
        seed: of the draw.
        minimum_test: patients that the test has at least; 1 or more.

    Returns:
        Three parts that share no subject and together hold all of them; none is empty.

    Raises:
        ValueError: too few patients, a name twice, or a proportion or minimum below 1.
    """
    if minimum_test < 1:
        raise ValueError(f"minimum_test: got {minimum_test}, need at least 1")
    order = _shuffled_patients(subjects, proportions, seed)
    if len(order) < 2 + minimum_test:
        raise ValueError(f"names: got {len(order)} patients, need at least {2 + minimum_test} to fill three parts")
    total = sum(proportions)
    validation_size = _share(len(order), proportions[1], total, 1, len(order) - 1 - minimum_test)
    test_size = _share(len(order), proportions[2], total, minimum_test, len(order) - 1 - validation_size)
    test, others = _take_evenly(order, test_size)
    validation, train = _take_evenly(others, validation_size)
    return _split(train, validation, test)


def split_fold(
    subjects: Sequence[Subject], proportions: tuple[int, int, int], seed: int, fold: int, folds: int
) -> Split:
    """Divides subjects for one of the runs of a cross-validation.

    As `split_subjects`, but that every subject is tested in exactly one of the folds, whose tests differ in size by one
    patient at most.

    Args:
        subjects: with different names.
        proportions: of training, validation and test; the first two divide the subjects that are not tested.
        seed: of the draw; the same for all folds.
        fold: which run, from 0 to `folds` - 1.
        folds: number of runs, at least 2.

    Raises:
        ValueError: too few patients for so many folds, a name twice, a fold that is not one, or a proportion below 1.
    """
    if folds < 2:
        raise ValueError(f"folds: got {folds}, need at least 2")
    if not 0 <= fold < folds:
        raise ValueError(f"fold: got {fold}, need a number from 0 to {folds - 1}")
    order = _shuffled_patients(subjects, proportions, seed)
    largest_test = -(-len(order) // folds)
    if len(order) < folds or len(order) - largest_test < 2:
        least = max(folds, 4 if folds == 2 else 3)
        raise ValueError(
            f"names: got {len(order)} patients, need at least {least} to fill three parts in {folds} folds"
        )
    others = [patient for position, patient in enumerate(order) if position % folds != fold]
    training, validation, _ = proportions
    validation_size = _share(len(others), validation, training + validation, 1, len(others) - 1)
    validation_patients, train = _take_evenly(others, validation_size)
    return _split(train, validation_patients, order[fold::folds])


def _shuffled_patients(subjects: Sequence[Subject], proportions: tuple[int, int, int], seed: int) -> list[_Patient]:
    """Patients in random order within each grade."""
    by_name = {subject.name: subject for subject in subjects}
    if len(by_name) < len(subjects):
        raise ValueError(f"names: {len(subjects) - len(by_name)} of {len(subjects)} are repeated, need each once")
    if min(proportions) < 1:
        raise ValueError(f"proportions: got {proportions}, need three numbers of at least 1")
    patients: dict[str, _Patient] = {}
    for name, subject in sorted(by_name.items()):
        patients.setdefault(subject.patient or name, []).append(subject)
    order = list(patients.values())
    random.Random(seed).shuffle(order)  # noqa: S311
    return sorted(order, key=lambda patient: patient[0].grade or "")


def _share(count: int, proportion: int, total: int, least: int, most: int) -> int:
    rounded = (2 * count * proportion + total) // (2 * total)
    return max(least, min(rounded, most))


def _take_evenly(order: Sequence[_Patient], count: int) -> tuple[list[_Patient], list[_Patient]]:
    """Takes `count` patients at even distances, so that every run of one grade gives its share; and the others."""
    positions = {(2 * k + 1) * len(order) // (2 * count) for k in range(count)}
    taken = [patient for position, patient in enumerate(order) if position in positions]
    return taken, [patient for position, patient in enumerate(order) if position not in positions]


def _split(*parts: Iterable[_Patient]) -> Split:
    train, validation, test = (tuple(sorted(subject.name for patient in part for subject in patient)) for part in parts)
    return Split(train, validation, test)
