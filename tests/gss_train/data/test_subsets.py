from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any

import pytest
import torch

from gss_train.data.subsets import MODALITY_SUBSETS, draw_subsets, subset_name


def test_table_holds_every_non_empty_subset_in_the_papers_order() -> None:
    assert set(MODALITY_SUBSETS) == {flags for flags in itertools.product((False, True), repeat=4) if any(flags)}
    assert [subset_name(subset) for subset in MODALITY_SUBSETS] == [
        "T2",
        "T1ce",
        "T1",
        "FLAIR",
        "T1ce+T2",
        "T1ce+T1",
        "FLAIR+T1",
        "T1+T2",
        "FLAIR+T2",
        "FLAIR+T1ce",
        "FLAIR+T1ce+T1",
        "FLAIR+T1+T2",
        "FLAIR+T1ce+T2",
        "T1ce+T1+T2",
        "FLAIR+T1ce+T1+T2",
    ]


def test_names_follow_the_order_of_channels() -> None:
    assert subset_name((True, True, False, False)) == "FLAIR+T1ce"
    assert subset_name(torch.tensor([False, False, True, True])) == "T1+T2"
    with pytest.raises(ValueError, match="subset"):
        subset_name((False, False, False, False))
    with pytest.raises(ValueError, match="subset"):
        subset_name((True, True))


@pytest.mark.parametrize("present", MODALITY_SUBSETS)
def test_subsets_are_drawn_uniformly_within_what_is_available(present: tuple[bool, ...]) -> None:
    per_subset = 200
    possible = [s for s in MODALITY_SUBSETS if all(have or not want for want, have in zip(s, present, strict=True))]
    available = torch.tensor(present).expand(per_subset * len(possible), 4)
    drawn = draw_subsets(available, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.bool
    rows = [tuple(row) for row in drawn.tolist()]
    counts = [rows.count(subset) for subset in possible]
    assert sum(counts) == len(rows)
    chi_square = sum((count - per_subset) ** 2 / per_subset for count in counts)
    # The 99.9 % quantile of the chi-square distribution with 14 degrees of freedom.
    assert chi_square < 36.1


Subset = tuple[bool, ...]


def coins(present: Subset) -> dict[Subset, float]:
    """Chances of RobustSeg's draw, from all falls of one coin for each modality, and the pick where none stays."""
    chances: dict[Subset, float] = defaultdict(float)
    places = [place for place, has in enumerate(present) if has]
    for falls in itertools.product([False, True], repeat=len(places)):
        kept = [place for place, fall in zip(places, falls, strict=True) if fall]
        for picked in [kept] if kept else [[place] for place in places]:
            subset = tuple(place in picked for place in range(4))
            chances[subset] += 0.5 ** len(places) / (1 if kept else len(places))
    return chances


def counts_first(present: Subset) -> dict[Subset, float]:
    """Chances of U-HVED's draw: how many of the modalities, then that many of them."""
    places = [place for place, has in enumerate(present) if has]
    chances = {}
    for count in range(1, len(places) + 1):
        choices = list(itertools.combinations(places, count))
        for choice in choices:
            chances[tuple(place in choice for place in range(4))] = 1 / len(places) / len(choices)
    return chances


@pytest.mark.parametrize("present", [(True,) * 4, (True, False, True, True), (False, True, False, False)])
@pytest.mark.parametrize(("draw", "chances_of"), [("modality", coins), ("count", counts_first)])
def test_other_published_draws_have_their_chances(draw: Any, chances_of: Any, present: Subset) -> None:
    count, chances = 4000, chances_of(present)
    assert sum(chances.values()) == pytest.approx(1)
    drawn = draw_subsets(torch.tensor(present).expand(count, 4), torch.Generator().manual_seed(0), draw)
    found = Counter(map(tuple, drawn.tolist()))
    assert set(found) <= set(chances)
    chi_square = sum((found[subset] - count * chance) ** 2 / (count * chance) for subset, chance in chances.items())
    assert chi_square < 36.1


def test_each_sample_keeps_to_its_own_modalities_and_draws_repeat() -> None:
    available = torch.tensor(MODALITY_SUBSETS)
    drawn = draw_subsets(available, torch.Generator().manual_seed(3))
    assert not (drawn & ~available).any()
    assert drawn.any(dim=1).all()
    assert torch.equal(drawn, draw_subsets(available, torch.Generator().manual_seed(3)))


def test_unusable_availability_is_refused() -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match="sample 1 has no modality"):
        draw_subsets(torch.tensor([[True] * 4, [False] * 4]), generator)
    with pytest.raises(ValueError, match=r"need torch\.bool of shape \(B, 4\)"):
        draw_subsets(torch.ones(2, 3, dtype=torch.bool), generator)
    with pytest.raises(ValueError, match=r"need torch\.bool"):
        draw_subsets(torch.ones(2, 4), generator)
