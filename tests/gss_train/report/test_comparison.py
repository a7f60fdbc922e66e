from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.report.comparison import compare, group_runs
from gss_train.report.runs import read_runs
from gss_train.report.tables import score_tables
from tests.gss_train.report.made_up import scores_of, settings_of, write_run

SEEDS = (0, 1)


def write_experiment(folder: Path, arms: tuple[str, ...] = ("baseline", "gss", "longer")) -> list[Path]:
    gains = {"baseline": 0.0, "gss": 0.25, "longer": 0.125}
    return [
        write_run(folder / f"{arm}-{seed}", settings_of(arm, seed), scores_of(10 * seed, gain=gains[arm]))
        for seed in SEEDS
        for arm in arms
    ]


def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path: Path) -> None:
    groups = group_runs(read_runs(write_experiment(tmp_path)))
    assert [group.label for group in groups] == ["baseline", "GSS", "longer baseline"]
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1]] * 3


def test_other_settings_make_another_group_with_another_label(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / name, settings_of("gss", 0, batch_size=size), scores_of(0))
        for name, size in (("small", 1), ("large", 4))
    ]
    assert [group.label for group in group_runs(read_runs(folders))] == ["GSS (small)", "GSS (large)"]


def test_a_measure_that_one_run_of_a_group_lacks_has_no_table(tmp_path: Path) -> None:
    both = scores_of(0)
    folders = [
        write_run(tmp_path / f"{seed}", settings_of("gss", seed), SubsetScores(both.subjects, both.names, measures))
        for seed, measures in ((0, {"dice": both.dice}), (1, both.measures))
    ]
    groups = group_runs(read_runs(folders))
    assert [len(group.runs) for group in groups] == [2]
    assert [table.title for table in score_tables(groups)] == ["Dice (%)"]


def test_gss_is_compared_with_both_baselines_by_seed(tmp_path: Path) -> None:
    differences, reasons = compare(group_runs(read_runs(write_experiment(tmp_path))))
    assert [(d.other.label, d.reference.label, d.pairs) for d in differences] == [
        ("GSS", "baseline", 2),
        ("longer baseline", "baseline", 2),
        ("GSS", "longer baseline", 2),
    ]
    assert not reasons
    # Every Dice of a pair differs by the gain.
    for difference, gain in zip(differences, (0.25, 0.125, 0.125), strict=True):
        for values in (difference.mean, difference.low, difference.high):
            np.testing.assert_allclose(values, gain)
        assert difference.spread is not None
        np.testing.assert_allclose(difference.spread, 0, atol=1e-12)
        assert difference.is_clear.all()


def test_differences_are_means_over_common_subjects_then_seeds(tmp_path: Path) -> None:
    baseline = [scores_of(seed, ("a", "b", "c")) for seed in SEEDS]
    gss = [scores_of(seed + 5, ("c", "d", "b")) for seed in SEEDS]
    folders = [write_run(tmp_path / f"b{seed}", settings_of("baseline", seed), baseline[seed]) for seed in SEEDS]
    folders += [write_run(tmp_path / f"g{seed}", settings_of("gss", seed), gss[seed]) for seed in SEEDS]
    ((difference,), _) = compare(group_runs(read_runs(folders)))
    assert difference.subjects == 2
    by_seed = torch.stack([gss[seed].dice[[2, 0]] - baseline[seed].dice[[1, 2]] for seed in SEEDS])
    expected = by_seed.mean(dim=(0, 1))
    np.testing.assert_allclose(difference.mean[:-1], expected, atol=1e-8)
    np.testing.assert_allclose(difference.mean[-1], expected.mean(dim=0), atol=1e-8)
    assert difference.spread is not None
    np.testing.assert_allclose(difference.spread[:-1], by_seed.mean(dim=1).std(dim=0), atol=1e-8)
    assert (difference.low <= difference.mean).all()
    assert (difference.mean <= difference.high).all()


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (scores_of(0, ("x", "y")), "they have no subject in common"),
        (SubsetScores(("a",), ("WT",), {"dice": torch.zeros(1, 15, 1, dtype=torch.float64)}), "their regions are not"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, other: SubsetScores, reason: str) -> None:
    folders = [
        write_run(tmp_path / "b", settings_of("baseline", 0), scores_of(0)),
        write_run(tmp_path / "g", settings_of("gss", 0), other),
    ]
    differences, reasons = compare(group_runs(read_runs(folders)))
    assert not differences
    assert reasons[0].startswith(f"GSS cannot be compared with baseline: {reason}")


def test_runs_without_a_baseline_are_compared_with_the_first(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / f"{size}", settings_of("gss", 0, batch_size=size), scores_of(size)) for size in (1, 2)
    ]
    ((difference,), _) = compare(group_runs(read_runs(folders)))
    assert (difference.reference.first.name, difference.other.first.name) == ("1", "2")
    assert difference.spread is None
