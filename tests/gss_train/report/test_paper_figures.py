from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gss_train.common.errors import UserError
from gss_train.data import DATASETS, MODALITY_SUBSETS
from gss_train.evaluation.folder import Evaluation, SegmentedSubject
from gss_train.evaluation.metrics import SCORES
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.report import save_evaluation_figures
from gss_train.report.figures.scores import save_bars, save_heat_map
from gss_train.report.figures.slices import save_panels

LONG_NAMES = [f"a run with a rather long name, seed {seed}" for seed in range(6)]


def scores(seed: int = 0, subjects: int = 3, names: tuple[str, ...] = SCORES) -> SubsetScores:
    generator = torch.Generator().manual_seed(seed)
    dice = torch.rand(subjects, len(MODALITY_SUBSETS), len(names), generator=generator, dtype=torch.float64)
    return SubsetScores(tuple(f"s{number}" for number in range(subjects)), names, {"dice": dice, "hd95_mm": 60 * dice})


def subject(dataset: str = "brats2018", *, with_tumour: bool = True) -> SegmentedSubject:
    generator = np.random.default_rng(0)
    shape, categories = (12, 14, 10), DATASETS[dataset].num_categories
    truth = np.zeros(shape, np.uint8)
    if with_tumour:
        truth[3:9, 4:10, 2:8] = generator.integers(0, categories, (6, 6, 6), np.uint8)
    return SegmentedSubject(
        "s0",
        generator.integers(0, 256, (4, *shape), np.uint8),
        np.array([True] * 4),
        truth,
        np.stack([truth] * len(MODALITY_SUBSETS)),
        np.array([1.0, 1.0, 1.0]),
    )


def evaluation(seed: int, names: tuple[str, ...] = SCORES) -> Evaluation:
    return Evaluation(f"run {seed}", DATASETS["brats2018"], scores(seed, names=names), {})


def texts(stem: Path) -> str:
    return stem.with_name(f"{stem.name}.svg").read_text(encoding="utf-8")


def test_a_heat_map_prints_every_mean(tmp_path: Path) -> None:
    table = scores()
    save_heat_map(tmp_path / "map", {"run": table})
    drawn = texts(tmp_path / "map")
    for value in [*table.mean.flatten().tolist(), *table.overall.tolist()]:
        assert f">{100 * value:.1f}<" in drawn
    for name in (*SCORES, "FLAIR", "T1ce", "T1", "T2", "mean"):
        assert f">{name}<" in drawn


def test_figures_are_300_dots_per_inch_and_as_wide_as_two_columns(tmp_path: Path) -> None:
    runs = {name: scores(seed, names=("WT",)) for seed, name in enumerate(LONG_NAMES)}
    save_heat_map(tmp_path / "map", runs, "hd95_mm")
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.width == pytest.approx(183 / 25.4 * 300, abs=1)
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=1)


def test_figures_repeat_to_the_byte(tmp_path: Path) -> None:
    for name in ("first", "second"):
        save_bars(tmp_path / name / "bars", {"run": scores(names=("WT",)), "other": scores(1, names=("WT",))})
    for kind in ("png", "svg"):
        first, second = (tmp_path / name / f"bars.{kind}" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_one_subject_and_subsets_that_nobody_has_are_drawn(tmp_path: Path) -> None:
    table = scores(subjects=1, names=SCORES[:2])
    table.measures["dice"][:, :4] = torch.nan
    save_heat_map(tmp_path / "map", {"run": table})
    save_bars(tmp_path / "bars", {"run": table})
    assert texts(tmp_path / "map").count(">-<") == 4 * 2


@pytest.mark.parametrize(("dataset", "with_tumour"), [("brats2015", True), ("brats2018", False)])
def test_panels_name_scans_subsets_runs_and_categories(tmp_path: Path, dataset: str, with_tumour: bool) -> None:
    drawn = subject(dataset, with_tumour=with_tumour)
    runs = {"baseline": drawn.predictions, "GSS": drawn.predictions}
    save_panels(tmp_path / "panels", drawn, DATASETS[dataset], MODALITY_SUBSETS, runs)
    found = texts(tmp_path / "panels")
    for name in ("FLAIR", "truth", "all", "baseline", "GSS", *DATASETS[dataset].categories[1:]):
        assert f">{name}<" in found
    # Four scans, a truth, and a prediction for each subset and run.
    assert found.count("<image") == 4 + 1 + 2 * len(MODALITY_SUBSETS)


def test_all_figures_of_runs_that_are_compared(tmp_path: Path) -> None:
    runs = {f"run {seed}": evaluation(seed, ("WT",)) for seed in range(2)}
    written = save_evaluation_figures(tmp_path, runs, {"run 0": [subject()], "run 1": []})
    assert [path.name for path in written] == [
        *("heat-map-dice.png", "heat-map-hd95-mm.png", "bars-dice.png", "panels-s0.png")
    ]
    assert all(path.exists() and path.with_suffix(".svg").exists() for path in written)


def test_runs_with_other_regions_are_refused(tmp_path: Path) -> None:
    runs = {"first": evaluation(0), "second": evaluation(1, SCORES[:3])}
    with pytest.raises(UserError, match="second: has other regions"):
        save_evaluation_figures(tmp_path, runs, {"first": [], "second": []})
    assert not list(tmp_path.iterdir())
