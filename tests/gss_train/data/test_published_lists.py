"""The published splits that come with the package."""

from __future__ import annotations

import re

import pytest

from gss_train.data import SplitError, describe_split, published_splits, read_split, same_subjects

SIZES = {
    ("brats2015", "published"): (242, 12, 20),
    ("brats2018", "published-1"): (199, 29, 57),
    ("brats2018", "published-2"): (199, 29, 57),
    ("brats2018", "published-3"): (199, 29, 57),
    ("brats2020", "published"): (219, 50, 100),
    ("brats2023", "published"): (875, 125, 251),
}


def test_there_are_these_lists_and_no_others() -> None:
    datasets = ("brats2015", "brats2018", "brats2019", "brats2020", "brats2021", "brats2023", "custom")
    assert [(dataset, name) for dataset in datasets for name in published_splits(dataset)] == list(SIZES)


@pytest.mark.parametrize(("dataset", "name"), SIZES)
def test_a_list_has_the_published_sizes_and_no_subject_twice(dataset: str, name: str) -> None:
    published = published_splits(dataset)[name]
    split = published.listed
    assert split.name == name
    assert (len(split.train), len(split.validation), len(split.test)) == SIZES[dataset, name]
    assert len(set(published.subjects)) == sum(SIZES[dataset, name])
    assert "/".join(map(str, SIZES[dataset, name])) in published.title


def test_the_lists_of_2018_divide_the_same_subjects_in_three_ways() -> None:
    first, second, third = published_splits("brats2018").values()
    assert set(first.subjects) == set(second.subjects) == set(third.subjects)
    assert len({first.listed.test, second.listed.test, third.listed.test}) == 3


def test_a_list_is_a_split_file_too() -> None:
    published = published_splits("brats2020")["published"]
    assert read_split(published.path, published.subjects) == (published.listed, ())


def test_subjects_are_found_with_or_without_their_grade_and_others_are_left_out() -> None:
    published = published_splits("brats2018")["published-2"]
    names = [f"HGG_{name}" for name in published.subjects]
    split, left_out = published.find([*names, "Brats18_other_1"])
    assert split.test == tuple(f"HGG_{name}" for name in published.listed.test)
    assert (split.name, left_out) == ("published-2", ("Brats18_other_1",))


def test_missing_subjects_are_counted_and_some_are_named() -> None:
    published = published_splits("brats2015")["published"]
    lacking = list(published.subjects[100:107])
    with pytest.raises(SplitError) as caught:
        published.find([name for name in published.subjects if name not in lacking])
    shown = re.escape(", ".join(lacking[:5]))
    assert re.match(rf"--split published: 7 of the 274 subjects .*: {shown} and 2 more; need all", str(caught.value))


@pytest.mark.parametrize(
    ("names", "same"),
    [
        (["HGG_a", "LGG_a"], True),
        (["LGG_a", "HGG_a"], True),
        (["HGG_a"], False),
        (["HGG_a", "LGG_a", "b"], False),
        (["HGG_a", "b"], False),
        (["a", "b"], False),
        (["HGG_a", "a"], False),
    ],
)
def test_the_same_subjects_are_all_that_are_listed_and_no_others(names: list[str], same: bool) -> None:
    assert same_subjects(["HGG_a", "LGG_a"], names) == same


def test_only_a_published_division_has_a_title() -> None:
    assert describe_split("brats2018", "published-3").startswith("published split 3 of 3 of BraTS2018")
    assert describe_split("brats2019", "seeded, --split-seed 0") == "seeded, --split-seed 0"
