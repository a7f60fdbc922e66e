from __future__ import annotations

import pytest
import torch

from gss_train.data import MODALITY_SUBSETS
from gss_train.evaluation.metrics import SCORES
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.evaluation.tables import csv_table, markdown_table


def test_tables_hold_every_subset_and_the_means() -> None:
    dice = torch.rand(2, 15, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = SubsetScores(("a", "b"), SCORES, {"dice": dice})
    lines = markdown_table(scores).splitlines()
    assert len(lines) == 2 + 15 + 1
    all_four = next(line for line in lines if line.startswith("| ● | ● | ● | ● |"))
    assert [float(cell) for cell in all_four.split("|")[5:9]] == [
        pytest.approx(100 * value, abs=0.006) for value in dice[:, -1].mean(dim=0).tolist()
    ]
    rows = csv_table(scores).splitlines()
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
    cells = [line.split("|")[5:9] for line in markdown_table(scores).splitlines()[2:-1]]
    assert [row == [" - "] * 4 for row in cells] == [not kept for kept in without_t1]
    rows = [line.split(",") for line in csv_table(scores).splitlines()[1:]]
    assert [row[2:] == [""] * 4 for row in rows[16:31]] == [not kept for kept in without_t1]
    assert float(rows[-1][2]) == pytest.approx(scores.overall[0].item(), abs=1e-6)


def test_tables_hold_just_the_subsets_that_were_scored() -> None:
    dice = torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = SubsetScores(("a", "b"), SCORES[:3], {"dice": dice}, ((True,) * 4, (False, True, False, False)))
    _, _, all_four, t1ce, mean = markdown_table(scores).splitlines()
    assert all_four.startswith("| ● | ● | ● | ● | ")
    assert t1ce.startswith("| ○ | ● | ○ | ○ | ")
    assert float(mean.split("|")[5]) == pytest.approx(100 * dice[..., 0].mean().item(), abs=0.006)
    rows = [row.split(",")[:2] for row in csv_table(scores).splitlines()[1:]]
    subsets = ("FLAIR+T1ce+T1+T2", "T1ce", "mean")
    assert rows == [[name, subset] for name in ("a", "b", "mean") for subset in subsets]
