"""Divides the subjects of a data set into training, validation and test."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Split:
    """Names of the subjects for each purpose, each in alphabetical order."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def split_subjects(
    names: Sequence[str],
    proportions: tuple[int, int, int],
    seed: int,
    *,
    minimum_validation: int = 1,
    minimum_test: int = 1,
    grades: Mapping[str, str | None] | None = None,
    patients: Mapping[str, str] | None = None,
) -> Split:
    """Divides subjects at random in the given proportions.

    With as many names as `proportions` counts, each of another patient, the parts have exactly those sizes. The result
    depends on the set of names, not on their order.

    Args:
        names: the subjects, each once.
        proportions: of training, validation and test, such as the published sizes of a split.
        seed: of the draw.
        minimum_validation: subjects that validation has at least; 1 or more.
        minimum_test: subjects that test has at least; 1 or more.
        grades: grade of every subject; when given, each part gets its share of every grade, to within one or two
            subjects.
        patients: patient of every subject; when given, it is patients that are divided and counted, so that no
            patient is in two parts.

    Returns:
        Three parts that share no subject and together hold all of them; none is empty.

    Raises:
        ValueError: too few names, a name twice, a negative or zero proportion, minimum below 1, or a name without
            grade or patient.
    """
    _check_names(names, proportions)
    by_patient = _group(names, patients)
    names = list(by_patient)
    if min(minimum_validation, minimum_test) < 1:
        raise ValueError(f"minimums: got {minimum_validation} and {minimum_test}, need at least 1 each")
    if len(names) < 1 + minimum_validation + minimum_test:
        least = 1 + minimum_validation + minimum_test
        raise ValueError(f"names: got {len(names)} patients, need at least {least} to fill three parts")
    order = _shuffle(names, seed, grades)
    total = sum(proportions)
    validation_size = _share(len(names), proportions[1], total, minimum_validation, len(names) - 1 - minimum_test)
    test_size = _share(len(names), proportions[2], total, minimum_test, len(names) - 1 - validation_size)
    test, others = _take_evenly(order, test_size)
    validation, train = _take_evenly(others, validation_size)
    return Split(*(_ungroup(part, by_patient) for part in (train, validation, test)))


def split_fold(
    names: Sequence[str],
    fold: int,
    folds: int,
    seed: int,
    proportions: tuple[int, int, int],
    *,
    grades: Mapping[str, str | None] | None = None,
    patients: Mapping[str, str] | None = None,
) -> Split:
    """Divides subjects for one of the runs of a cross-validation.

    Every subject is tested in exactly one of the folds, whose tests differ in size by one patient at most. The result
    depends on the set of names, not on their order.

    Args:
        names: the subjects, each once.
        fold: which run, from 0 to `folds` - 1.
        folds: number of runs, at least 2.
        seed: of the draw; the same for all folds.
        proportions: of training, validation and test; the first two divide the subjects that are not tested.
        grades: grade of every subject; when given, each part gets its share of every grade, to within one or two
            subjects.
        patients: as for `split_subjects`.

    Returns:
        Three parts that share no subject and together hold all of them; none is empty.

    Raises:
        ValueError: too few names for so many folds, a name twice, a fold that is not one, a zero or negative
            proportion, or a name without grade or patient.
    """
    _check_names(names, proportions)
    by_patient = _group(names, patients)
    names = list(by_patient)
    if folds < 2:
        raise ValueError(f"folds: got {folds}, need at least 2")
    if not 0 <= fold < folds:
        raise ValueError(f"fold: got {fold}, need a number from 0 to {folds - 1}")
    largest_test = -(-len(names) // folds)
    if len(names) < folds or len(names) - largest_test < 2:
        least = max(folds, 4 if folds == 2 else 3)
        raise ValueError(
            f"names: got {len(names)} patients, need at least {least} to fill three parts in {folds} folds"
        )
    order = _shuffle(names, seed, grades)
    test = order[fold::folds]
    others = [name for position, name in enumerate(order) if position % folds != fold]
    training, validation, _ = proportions
    validation_size = _share(len(others), validation, training + validation, 1, len(others) - 1)
    validation_names, train = _take_evenly(others, validation_size)
    return Split(*(_ungroup(part, by_patient) for part in (train, validation_names, test)))


def _check_names(names: Sequence[str], proportions: tuple[int, int, int]) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"names: {len(names) - len(set(names))} of {len(names)} are repeated, need each subject once")
    if min(proportions) < 1:
        raise ValueError(f"proportions: got {proportions}, need three numbers of at least 1")


def _group(names: Sequence[str], patients: Mapping[str, str] | None) -> dict[str, list[str]]:
    """The subjects of each patient, by the first one's name."""
    if patients is None:
        return {name: [name] for name in names}
    unknown = sorted(set(names) - set(patients))
    if unknown:
        raise ValueError(f"patients: has none for {unknown[0]} and {len(unknown) - 1} others, needs one for each name")
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(patients[name], []).append(name)
    return {group[0]: group for group in groups.values()}


def _ungroup(part: Iterable[str], by_patient: Mapping[str, list[str]]) -> tuple[str, ...]:
    return tuple(sorted(name for first in part for name in by_patient[first]))


def _shuffle(names: Sequence[str], seed: int, grades: Mapping[str, str | None] | None) -> list[str]:
    """Names in random order, or in random order within each grade."""
    order = sorted(names)
    random.Random(seed).shuffle(order)  # noqa: S311
    if grades is not None:
        unknown = sorted(set(names) - set(grades))
        if unknown:
            raise ValueError(
                f"grades: has none for {unknown[0]} and {len(unknown) - 1} others, needs one for each name"
            )
        order.sort(key=lambda name: grades[name] or "")
    return order


def _share(count: int, proportion: int, total: int, least: int, most: int) -> int:
    rounded = (2 * count * proportion + total) // (2 * total)
    return max(least, min(rounded, most))


def _take_evenly(items: Sequence[str], count: int) -> tuple[list[str], list[str]]:
    """Takes `count` items at even distances, so that every run of items of one grade gives its share."""
    positions = {(2 * k + 1) * len(items) // (2 * count) for k in range(count)}
    taken = [item for position, item in enumerate(items) if position in positions]
    rest = [item for position, item in enumerate(items) if position not in positions]
    return taken, rest
