from __future__ import annotations

import pytest
import torch

from gss_train.data import DATASETS
from gss_train.metrics import SCORES, region_dice


def volumes(predicted: dict[int, int], true: dict[int, int], shape: tuple[int, ...] = (10, 10, 10)) -> tuple:
    """Two volumes whose first voxels hold the given categories, so many of each, one category after the other."""
    results = []
    for counts in (predicted, true):
        flat = torch.zeros(torch.Size(shape).numel(), dtype=torch.uint8)
        start = 0
        for category, count in counts.items():
            flat[start : start + count] = category
            start += count
        results.append(flat.view(shape))
    return tuple(results)


def test_regions_of_four_categories() -> None:
    # Voxels 0-9 NCR/NET, 10-29 ED, 30-34 ET predicted; 0-9 NCR/NET, 10-19 ED, 20-34 ET true.
    prediction, truth = volumes({1: 10, 2: 20, 3: 5}, {1: 10, 2: 10, 3: 15})
    wt, tc, et, et_post = region_dice(prediction, truth, "brats2020").tolist()
    assert wt == pytest.approx(1.0)
    assert tc == pytest.approx(2 * 15 / (15 + 25))
    assert et == pytest.approx(2 * 5 / (5 + 15))
    assert et_post == pytest.approx(0.0, abs=1e-6)


def test_regions_of_five_categories() -> None:
    prediction, truth = volumes({1: 4, 2: 4, 3: 4, 4: 4}, {1: 4, 2: 4, 4: 4, 3: 4})
    wt, tc, et, _ = region_dice(prediction, truth, DATASETS["brats2015"]).tolist()
    assert (wt, tc) == (pytest.approx(1.0), pytest.approx(1.0))
    assert et == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("voxels", "kept"), [(499, False), (500, True)])
def test_post_processing_removes_fewer_than_500_voxels(voxels: int, kept: bool) -> None:
    prediction, truth = volumes({3: voxels}, {3: voxels})
    _, _, et, et_post = region_dice(prediction, truth, "brats2018").tolist()
    assert et == pytest.approx(1.0)
    assert et_post == pytest.approx(1.0 if kept else 0.0, abs=1e-6)


def test_empty_regions_score_one_and_post_processing_can_reach_it() -> None:
    prediction, truth = volumes({3: 10}, {})
    wt, _, et, et_post = region_dice(prediction, truth, "brats2018").tolist()
    assert et_post == pytest.approx(1.0)
    assert et == wt == pytest.approx(0.0, abs=1e-6)


def test_a_batch_is_scored_subject_by_subject() -> None:
    first, second = volumes({3: 7}, {3: 9}), volumes({1: 4}, {2: 4})
    batched = region_dice(torch.stack([first[0], second[0]]), torch.stack([first[1], second[1]]), "brats2018")
    assert batched.shape == (2, len(SCORES))
    torch.testing.assert_close(batched[0], region_dice(*first, "brats2018"))
    torch.testing.assert_close(batched[1], region_dice(*second, "brats2018"))


@pytest.mark.parametrize(
    ("prediction", "truth", "dataset", "message"),
    [
        (torch.zeros(2, 2, 2, dtype=torch.uint8), torch.zeros(2, 2, 3, dtype=torch.uint8), "brats2018", "shapes"),
        (torch.zeros(2, 2, 2), torch.zeros(2, 2, 2, dtype=torch.uint8), "brats2018", "prediction: got torch.float32"),
        (torch.zeros(2, 2, 2, dtype=torch.uint8), torch.zeros(2, 2, 2, dtype=torch.uint8), "brats", "dataset: got"),
    ],
)
def test_bad_arguments(prediction: torch.Tensor, truth: torch.Tensor, dataset: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        region_dice(prediction, truth, dataset)
