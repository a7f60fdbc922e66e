from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from gss_train.data.datasets import DATASETS, Subject
from gss_train.data.splits import Split, split_fold, split_subjects


def names(count: int) -> list[str]:
    return [f"subject_{number:03}" for number in range(count)]


def some(count: int, grades: Sequence[str | None] = (None,)) -> list[Subject]:
    """Subjects of these grades in turn."""
    return [Subject(name, grades[number % len(grades)], {}, None) for number, name in enumerate(names(count))]


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.train), len(split.validation), len(split.test)


@pytest.mark.parametrize("name", DATASETS)
def test_published_sizes_for_the_whole_data_set(name: str) -> None:
    published = DATASETS[name].published_split
    assert sizes(split_subjects(some(sum(published)), published, seed=0)) == published


@pytest.mark.parametrize(
    ("count", "expected"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (12, (10, 1, 1)), (100, (89, 4, 7)), (137, (121, 6, 10))]
)
def test_brats2015_proportions_for_fewer_subjects(count: int, expected: tuple[int, int, int]) -> None:
    assert sizes(split_subjects(some(count), (242, 12, 20), seed=0)) == expected


@given(
    count=st.integers(3, 60),
    proportions=st.tuples(*[st.integers(1, 400)] * 3),
    seed=st.integers(0, 10),
    graded=st.booleans(),
)
def test_parts_are_disjoint_complete_and_never_empty(
    count: int, proportions: tuple[int, int, int], seed: int, graded: bool
) -> None:
    subjects = some(count, ("HGG", "LGG", None) if graded else (None,))
    split = split_subjects(subjects, proportions, seed)
    assert min(sizes(split)) >= 1
    assert sorted(split.train + split.validation + split.test) == names(count)


def test_order_of_names_does_not_matter_and_the_seed_does() -> None:
    first = split_subjects(some(30), (3, 1, 1), seed=1)
    assert split_subjects(some(30)[::-1], (3, 1, 1), seed=1) == first
    assert split_subjects(some(30), (3, 1, 1), seed=2) != first


def test_every_subject_gets_tested_with_its_chance() -> None:
    tested = [name for seed in range(2000) for name in split_subjects(some(10), (7, 1, 2), seed).test]
    assert all(abs(tested.count(name) - 400) < 80 for name in names(10))  # 4.5 standard deviations


def test_minimums_are_kept() -> None:
    assert sizes(split_subjects(some(12), (242, 12, 20), seed=0, minimum_test=3)) == (8, 1, 3)
    assert sizes(split_subjects(some(12), (242, 12, 20), seed=0, minimum_test=10)) == (1, 1, 10)


def test_each_part_gets_its_share_of_every_grade() -> None:
    subjects = some(274, ["HGG"] * 220 + ["LGG"] * 54)
    grades = {subject.name: subject.grade for subject in subjects}
    for seed in range(20):
        split = split_subjects(subjects, (242, 12, 20), seed)
        assert sizes(split) == (242, 12, 20)
        for part in (split.validation, split.test):
            low_grade = sum(grades[name] == "LGG" for name in part)
            assert abs(low_grade - len(part) * 54 / 274) <= 1


@pytest.mark.parametrize(("count", "minimum_test", "least"), [(0, 1, 3), (2, 1, 3), (4, 3, 5)])
def test_too_few_subjects_are_refused(count: int, minimum_test: int, least: int) -> None:
    with pytest.raises(ValueError, match=rf"got {count} patients, need at least {least}"):
        split_subjects(some(count), (3, 1, 1), seed=0, minimum_test=minimum_test)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="repeated"):
        split_subjects([*some(3), *some(1)], (3, 1, 1), seed=0)
    with pytest.raises(ValueError, match="proportions"):
        split_subjects(some(5), (3, 0, 1), seed=0)
    with pytest.raises(ValueError, match="minimum_test"):
        split_subjects(some(5), (3, 1, 1), seed=0, minimum_test=0)


@given(
    count=st.integers(4, 60),
    folds=st.integers(2, 10),
    seed=st.integers(0, 10),
    proportions=st.tuples(*[st.integers(1, 400)] * 3),
    graded=st.booleans(),
)
def test_over_the_folds_every_subject_is_tested_once(
    count: int, folds: int, seed: int, proportions: tuple[int, int, int], graded: bool
) -> None:
    folds = min(folds, count)
    subjects = some(count, ("HGG", "LGG", None) if graded else (None,))
    splits = [split_fold(subjects, proportions, seed, fold, folds) for fold in range(folds)]
    assert sorted(name for split in splits for name in split.test) == names(count)
    assert max(len(split.test) for split in splits) - min(len(split.test) for split in splits) <= 1
    for split in splits:
        assert min(sizes(split)) >= 1
        assert sorted(split.train + split.validation + split.test) == names(count)


def test_folds_depend_on_the_seed_and_not_on_the_order_of_names() -> None:
    first = split_fold(some(30), (3, 1, 1), 1, 2, 5)
    assert split_fold(some(30)[::-1], (3, 1, 1), 1, 2, 5) == first
    assert split_fold(some(30), (3, 1, 1), 2, 2, 5) != first
    assert sizes(first) == (18, 6, 6)


def test_each_fold_tests_its_share_of_every_grade() -> None:
    subjects = some(274, ["HGG"] * 220 + ["LGG"] * 54)
    grades = {subject.name: subject.grade for subject in subjects}
    for fold in range(5):
        split = split_fold(subjects, (242, 12, 20), 0, fold, 5)
        assert sum(grades[name] == "LGG" for name in split.test) in {10, 11}
        assert sum(grades[name] == "LGG" for name in split.validation) in {1, 2, 3}


@pytest.mark.parametrize(
    ("count", "fold", "folds", "message"),
    [
        (9, 0, 1, "folds: got 1, need at least 2"),
        (9, 3, 3, "fold: got 3, need a number from 0 to 2"),
        (9, -1, 3, "fold: got -1"),
        (3, 0, 2, "got 3 patients, need at least 4 to fill three parts in 2 folds"),
        (9, 0, 10, "got 9 patients, need at least 10"),
    ],
)
def test_impossible_folds_are_refused(count: int, fold: int, folds: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_fold(some(count), (3, 1, 1), 0, fold, folds)


@given(count=st.integers(4, 12), points=st.lists(st.integers(1, 4), min_size=12, max_size=12), seed=st.integers(0, 5))
def test_no_patient_is_in_two_parts(count: int, points: list[int], seed: int) -> None:
    patients = {f"p{patient}-{point}": f"p{patient}" for patient in range(count) for point in range(points[patient])}
    subjects = [Subject(name, None, {}, None, patient) for name, patient in patients.items()]
    splits = [split_subjects(subjects, (5, 2, 3), seed)]
    folds = [split_fold(subjects, (5, 2, 3), seed, fold, 3) for fold in range(3)]
    for split in (*splits, *folds):
        parts = [{patients[name] for name in part} for part in (split.train, split.validation, split.test)]
        assert all(parts)
        assert sum(map(len, parts)) == count
        assert sorted(split.train + split.validation + split.test) == sorted(patients)
    assert sorted(name for split in folds for name in split.test) == sorted(patients)
