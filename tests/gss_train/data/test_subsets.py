from __future__ import annotations

import itertools

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
