"""`CategoryGroups` and the tables of the data sets."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from gss_kernels import BRATS_2015, BRATS_2018, BRATS_2020, CategoryGroups


def named_leaders(groups: CategoryGroups) -> dict[str, set[str]]:
    assert groups.categories is not None
    assert groups.modalities is not None
    return {
        category: {groups.modalities[m] for m in leaders}
        for category, leaders in zip(groups.categories, groups.leaders, strict=True)
    }


@pytest.mark.parametrize("groups", [BRATS_2018, BRATS_2020])
def test_four_categories(groups: CategoryGroups) -> None:
    assert groups.modalities == ("FLAIR", "T1ce", "T1", "T2")
    assert list(named_leaders(groups).items()) == [
        ("BG", {"FLAIR"}),
        ("NCR/NET", {"T1ce"}),
        ("ED", {"FLAIR", "T2"}),
        ("ET", {"T1ce"}),
    ]


def test_five_categories() -> None:
    assert BRATS_2015.modalities == ("FLAIR", "T1ce", "T1", "T2")
    assert list(named_leaders(BRATS_2015).items()) == [
        ("BG", {"FLAIR"}),
        ("NCR", {"T1ce"}),
        ("ED", {"FLAIR", "T2"}),
        ("NET", {"T1ce"}),
        ("ET", {"T1ce"}),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"leaders": ((0,),)}, "leaders: got 1 category"),
        ({"leaders": ()}, "leaders: got 0 "),
        ({"leaders": ((0,), ())}, r"leaders\[1\]: got an empty leader set"),
        ({"leaders": ((0, 1, 0), (1,))}, r"leaders\[0\]: got \(0, 1, 0\), need each modality index once"),
        ({"leaders": ((0,), (-1,))}, r"leaders\[1\]: got \(-1,\)"),
        ({"leaders": ((0,), (2,)), "modalities": ("a", "b")}, r"leaders\[1\]: got \(2,\), need .* below 2"),
        ({"leaders": ((0,), (1,)), "categories": ("a",)}, "categories: got 1 names"),
        ({"leaders": ((0,), (0,)), "modalities": ("a",)}, "modalities: got 1 name"),
        ({"leaders": 5}, "leaders: got 5, need a sequence of one leader set for each category"),
        ({"leaders": None}, "leaders: got None, need a sequence"),
        ({"leaders": "01"}, "leaders: got '01', need a sequence"),
        ({"leaders": {0: (0,), 1: (1,)}}, "leaders: got {.*}, need a sequence"),
        ({"leaders": (0, 1)}, r"leaders\[0\]: got 0, need a sequence of indices of modalities"),
        ({"leaders": ((0,), {1})}, r"leaders\[1\]: got \{1\}, need a sequence of indices of modalities"),
        ({"leaders": ("FLAIR", (1,))}, r"leaders\[0\]: got 'FLAIR', need a sequence of indices of modalities"),
        ({"leaders": (("FLAIR",), (1,))}, r"leaders\[0\]: got 'FLAIR', need indices of modalities"),
        ({"leaders": ((0,), (True,))}, r"leaders\[1\]: got True, need indices of modalities"),
        ({"leaders": ((0,), (0, 1.0))}, r"leaders\[1\]: got 1.0, need indices of modalities"),
        ({"leaders": ((0,), (torch.tensor(1),))}, r"leaders\[1\]: got tensor\(1\), need indices of modalities"),
        ({"leaders": ((0,), (1,)), "categories": "ab"}, "categories: got 'ab', need a sequence of names"),
        ({"leaders": ((0,), (1,)), "modalities": "ab"}, "modalities: got 'ab', need a sequence of names"),
        ({"leaders": ((0,), (1,)), "modalities": 2}, "modalities: got 2, need a sequence of names"),
        ({"leaders": ((0,), (1,)), "categories": ("a", 1)}, "categories: got 1, need names that are strings"),
        ({"leaders": ((0,), (1,)), "modalities": (b"a", "b")}, "modalities: got b'a', need names that are strings"),
        ({"leaders": ((0,), (1,)), "categories": ["a", "a"]}, r"categories: got \('a', 'a'\), need each name once"),
        ({"leaders": ((0,), (1,)), "modalities": ("a", "a")}, r"modalities: got \('a', 'a'\), need each name once"),
    ],
)
def test_impossible_groups(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        CategoryGroups(**arguments)


@pytest.mark.parametrize("number", [np.int64, np.uint8])
def test_leaders_are_integers_of_any_library(number: Any) -> None:
    groups = CategoryGroups([[number(0)], [number(1), number(2)]])  # type: ignore[arg-type]
    assert groups == CategoryGroups(((0,), (1, 2)))
    assert all(type(index) is int for leaders in groups.leaders for index in leaders)


def test_members_are_all_others() -> None:
    groups = CategoryGroups(((1, 3), (0, 1, 2, 3)))
    assert groups.num_categories == 2
    assert groups.members(0, 4) == (0, 2)
    assert groups.members(1, 4) == ()


def test_groups_are_frozen_hashable_values() -> None:
    groups = CategoryGroups([[0], [1, 2]], categories=["a", "b"])  # type: ignore[arg-type]
    same = CategoryGroups(((0,), (1, 2)), categories=("a", "b"))
    assert groups == same
    assert hash(groups) == hash(same)
    assert pickle.loads(pickle.dumps(groups)) == groups
    with pytest.raises(dataclasses.FrozenInstanceError):
        groups.leaders = ()  # type: ignore[misc]
