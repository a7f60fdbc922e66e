from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gss_train.data import DATASETS
from gss_train.evaluation.metrics import MEASURES, SCORES, region_dice, region_measures


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


def random_labels(seed: int, shape: tuple[int, int, int] = (7, 8, 9)) -> torch.Tensor:
    """Category indices in blobs, so that surfaces are not everything."""
    noise = torch.rand(4, 1, *shape, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool3d(noise, 3, stride=1, padding=1)[:, 0]
    return smooth.argmax(dim=0).to(torch.uint8)


def surface(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Positions in mm of the voxels that have one of their six neighbours outside."""
    padded = np.pad(mask, 1)
    inside = np.ones_like(mask)
    for axis in range(3):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
    return np.argwhere(mask & ~inside) * np.array(spacing)


def percentile_distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.percentile(np.linalg.norm(first[:, None] - second[None], axis=-1).min(axis=1), 95))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
@pytest.mark.parametrize("seed", range(4))
def test_hausdorff_distance_is_that_of_the_surfaces_in_millimetres(seed: int, spacing: tuple[float, ...]) -> None:
    prediction, truth = random_labels(seed), random_labels(seed + 100)
    found = region_measures(prediction, truth, "brats2018", spacing, ["hd95_mm"])["hd95_mm"]
    regions = DATASETS["brats2018"].regions
    for distance, region in zip(found[:3].tolist(), ("WT", "TC", "ET"), strict=True):
        first, second = (surface(np.isin(labels.numpy(), regions[region]), spacing) for labels in (prediction, truth))
        expected = max(percentile_distance(first, second), percentile_distance(second, first))
        assert distance == pytest.approx(expected, rel=1e-5)


def test_sensitivity_and_precision_are_shares_of_the_regions() -> None:
    prediction, truth = volumes({1: 10, 2: 20, 3: 5}, {1: 10, 2: 10, 3: 15})
    found = region_measures(prediction, truth, "brats2020", (1, 1, 1), ["sensitivity", "precision"])
    # TC: 15 voxels predicted, all of them true; 25 true. ET: 5 predicted and true of 15.
    assert found["sensitivity"].tolist() == pytest.approx([1, 15 / 25, 5 / 15, 0])
    assert found["precision"].tolist() == pytest.approx([1, 1, 1, 0])


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        # Dice, HD95, sensitivity, precision of ET.
        ({}, {}, [1, 0, 1, 1]),
        ({3: 600}, {}, [0, 373.13, 1, 0]),
        ({}, {3: 600}, [0, 373.13, 0, 0]),
        ({3: 600}, {3: 600}, [1, 0, 1, 1]),
    ],
    ids=["both empty", "truth empty", "prediction empty", "equal"],
)
def test_empty_regions(predicted: dict[int, int], true: dict[int, int], expected: list[float]) -> None:
    measures = region_measures(*volumes(predicted, true), "brats2018", (1, 1, 1))
    assert tuple(measures) == tuple(MEASURES)
    assert [values[2].item() for values in measures.values()] == pytest.approx(expected, abs=1e-6)


def test_the_penalty_of_a_missed_region_is_the_diagonal_of_a_brats_volume() -> None:
    found = region_measures(*volumes({3: 1}, {}), "brats2018", (1, 1, 1), ["hd95_mm"])["hd95_mm"]
    assert found[2].item() == pytest.approx(math.hypot(240, 240, 155), abs=0.01)


def test_post_processing_counts_for_every_measure() -> None:
    measures = region_measures(*volumes({3: 499}, {}), "brats2018", (1, 1, 1))
    assert [values[2].item() for values in measures.values()] == pytest.approx([0, 373.13, 1, 0], abs=1e-6)
    assert [values[3].item() for values in measures.values()] == pytest.approx([1, 0, 1, 1], abs=1e-6)


def test_measures_of_a_batch_are_those_of_its_samples() -> None:
    pairs = [(random_labels(seed), random_labels(seed + 50)) for seed in range(3)]
    batch = region_measures(*(torch.stack(labels) for labels in zip(*pairs, strict=True)), "brats2018", (1, 2, 3))
    for number, pair in enumerate(pairs):
        for measure, values in region_measures(*pair, "brats2018", (1, 2, 3)).items():
            assert torch.equal(batch[measure][number], values)
    assert torch.equal(batch["dice"], region_dice(*map(torch.stack, zip(*pairs, strict=True)), "brats2018"))


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(ValueError, match="measures: got hd100, need some of dice, hd95_mm, sensitivity, precision"):
        region_measures(*volumes({}, {}), "brats2018", (1, 1, 1), ["hd100"])


@pytest.mark.parametrize(
    ("measure", "value", "signed", "shown"),
    [
        ("dice", 0.12345, False, "12.3"),
        ("dice", -0.12345, True, "\N{MINUS SIGN}12.3"),
        ("dice", 0.12345, True, "+12.3"),
        ("dice", -0.0001, True, "+0.0"),
        ("hd95_mm", 12.345, False, "12.3"),
        ("hd95_mm", math.nan, False, "-"),
    ],
)
def test_people_read_per_cent_or_millimetres(measure: str, value: float, signed: bool, shown: str) -> None:
    assert MEASURES[measure].show(value, 1, signed=signed) == shown
