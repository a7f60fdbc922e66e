from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch

from gss_train.data import MODALITIES, MODALITY_SUBSETS, subset_name
from gss_train.evaluation.intervals import interval_of
from gss_train.evaluation.metrics import SCORES
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.evaluation.tables import dice_csv, dice_markdown, paper_csv, paper_markdown, subjects_csv

MEASURES = ("dice", "hd95_mm")


@pytest.fixture(scope="module")
def scores() -> SubsetScores:
    """Of three subjects, of which the second has no T1."""
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.rand(3, 15, 4, generator=generator, dtype=torch.float64) for name in MEASURES}
    values["hd95_mm"] *= 100
    for table in values.values():
        table[1, [subset[2] for subset in MODALITY_SUBSETS]] = torch.nan
    return SubsetScores(("a", "b", "c"), SCORES, values)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def markdown_tables(scores: SubsetScores) -> dict[str, list[list[str]]]:
    """The lines of each table, by its title."""
    intervals = {measure: interval_of(scores, measure) for measure in scores.measures}
    blocks = paper_markdown(scores, intervals).strip().split("\n\n")
    return {
        title.lstrip("# "): [cells(line) for line in table.splitlines()]
        for title, table in zip(blocks[::2], blocks[1::2], strict=True)
    }


def test_columns_are_the_subsets_in_the_order_of_the_papers(scores: SubsetScores) -> None:
    for lines in markdown_tables(scores).values():
        first, rule, *rest = lines
        circles = [first, *rest[:3]]
        assert [row[0] for row in circles] == list(MODALITIES)
        columns = zip(*(row[1:-1] for row in circles), strict=True)
        assert [tuple(circle == "●" for circle in column) for column in columns] == list(MODALITY_SUBSETS)
        assert [row[0] for row in rest[3:]] == list(SCORES)
        assert {len(row) for row in lines} == {1 + 15 + 1}
        assert set(rule[0]) | set(rule[1]) == {":", "-"}
        assert first[-1] == "mean"


@pytest.mark.parametrize(
    ("title", "measure", "scale"),
    [("Dice (%)", "dice", 100), ("95th percentile of the Hausdorff distance (mm)", "hd95_mm", 1)],
)
def test_tables_for_people_have_means_and_intervals(scores: SubsetScores, title: str, measure: str, scale: int) -> None:
    tables = markdown_tables(scores)
    means = np.array([[float(cell) for cell in row[1:]] for row in tables[title][5:]])
    expected = np.nanmean(scores.measures[measure].numpy(), axis=0)
    np.testing.assert_allclose(means[:, :-1], scale * expected.T, atol=0.0051)
    np.testing.assert_allclose(means[:, -1], scale * expected.mean(axis=0), atol=0.0051)
    low, high = interval_of(scores, measure)
    ranges = [[cell.split(" to ") for cell in row[1:]] for row in tables[f"{title}: 95 % intervals over subjects"][5:]]
    np.testing.assert_allclose(
        np.array(ranges, np.float64), scale * np.stack([low.T, high.T], axis=-1), atol=0.0051, rtol=0
    )


def test_what_no_subject_has_the_scans_for_is_a_dash(scores: SubsetScores) -> None:
    alone = SubsetScores(("b",), SCORES, {name: values[1:2] for name, values in scores.measures.items()})
    for title, lines in markdown_tables(alone).items():
        for row in lines[5:]:
            # One subject has no intervals.
            unknown = "- to -" if "intervals" in title else "-"
            assert [cell == unknown for cell in row[1:-1]] == [
                subset[2] or "intervals" in title for subset in MODALITY_SUBSETS
            ]


def test_the_table_for_programs_has_a_row_for_each_measure_and_region(scores: SubsetScores) -> None:
    header, *rows = csv.reader(io.StringIO(paper_csv(scores)))
    assert header == ["measure", "region", *map(subset_name, MODALITY_SUBSETS), "mean"]
    assert [row[:2] for row in rows] == [[measure, name] for measure in MEASURES for name in SCORES]
    for measure, block in (("dice", rows[:4]), ("hd95_mm", rows[4:])):
        expected = np.nanmean(scores.measures[measure].numpy(), axis=0).T
        np.testing.assert_allclose(np.array([row[2:-1] for row in block], np.float64), expected, atol=1e-6)
        np.testing.assert_allclose([float(row[-1]) for row in block], expected.mean(axis=1), atol=1e-6)


def test_every_subject_and_subset_has_a_row(scores: SubsetScores) -> None:
    header, *rows = csv.reader(io.StringIO(subjects_csv(scores)))
    assert header == ["subject", "modalities", *(f"{measure} {name}" for measure in MEASURES for name in SCORES)]
    assert [row[:2] for row in rows] == [[name, subset_name(subset)] for name in "abc" for subset in MODALITY_SUBSETS]
    found = np.array([[float(cell or "nan") for cell in row[2:]] for row in rows])
    expected = torch.cat([scores.measures[measure] for measure in MEASURES], dim=-1).flatten(0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_tables_hold_every_subset_and_the_means() -> None:
    dice = torch.rand(2, 15, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = SubsetScores(("a", "b"), SCORES, {"dice": dice})
    lines = dice_markdown(scores).splitlines()
    assert len(lines) == 2 + 15 + 1
    all_four = next(line for line in lines if line.startswith("| ● | ● | ● | ● |"))
    assert [float(cell) for cell in all_four.split("|")[5:9]] == [
        pytest.approx(100 * value, abs=0.006) for value in dice[:, -1].mean(dim=0).tolist()
    ]
    rows = dice_csv(scores).splitlines()
    assert rows[0].startswith("subject,modalities,WT (0 to 1),TC (0 to 1),")
    assert len(rows) == 1 + 3 * 16
    mean = rows[-1].split(",")
    assert mean[:2] == ["mean", "mean"]
    assert float(mean[2]) == pytest.approx(dice[..., 0].mean().item(), abs=1e-6)
    assert rows[15].split(",")[:3] == ["a", "FLAIR+T1ce+T1+T2", f"{dice[0, -1, 0].item():.6f}"]


def test_subsets_that_no_subject_has_the_scans_for_are_left_out_of_tables_and_means() -> None:
    dice = torch.rand(2, 15, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    without_t1 = torch.tensor([not subset[2] for subset in MODALITY_SUBSETS])
    dice[:, ~without_t1] = torch.nan
    dice[0, 1] = torch.nan
    scores = SubsetScores(("a", "b"), SCORES, {"dice": dice})
    torch.testing.assert_close(scores.mean[1], dice[1, 1])
    torch.testing.assert_close(scores.overall, scores.mean[without_t1].mean(dim=0))
    cells = [line.split("|")[5:9] for line in dice_markdown(scores).splitlines()[2:-1]]
    assert [row == [" - "] * 4 for row in cells] == [not kept for kept in without_t1]
    rows = [line.split(",") for line in dice_csv(scores).splitlines()[1:]]
    assert [row[2:] == [""] * 4 for row in rows[16:31]] == [not kept for kept in without_t1]
    assert float(rows[-1][2]) == pytest.approx(scores.overall[0].item(), abs=1e-6)


def test_tables_hold_just_the_subsets_that_were_scored() -> None:
    dice = torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = SubsetScores(("a", "b"), SCORES[:3], {"dice": dice}, ((True,) * 4, (False, True, False, False)))
    _, _, all_four, t1ce, mean = dice_markdown(scores).splitlines()
    assert all_four.startswith("| ● | ● | ● | ● | ")
    assert t1ce.startswith("| ○ | ● | ○ | ○ | ")
    assert float(mean.split("|")[5]) == pytest.approx(100 * dice[..., 0].mean().item(), abs=0.006)
    rows = [row.split(",")[:2] for row in dice_csv(scores).splitlines()[1:]]
    subsets = ("FLAIR+T1ce+T1+T2", "T1ce", "mean")
    assert rows == [[name, subset] for name in ("a", "b", "mean") for subset in subsets]
