from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gss_train.data import MODALITY_SUBSETS
from gss_train.engine.evaluation import SubsetScores, segment_subsets
from gss_train.engine.tables import csv_table, markdown_table
from gss_train.metrics import SCORES


class BrightestModality:
    """Predicts, voxel by voxel, which of the fused modalities is largest; counts its calls."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, x: Tensor, available: Tensor | None = None) -> tuple[Tensor, ...]:
        assert x.shape[2:] == (4, 4, 4)
        self.encoded += 1
        return (x,)

    def fuse(self, features: tuple[Tensor, ...], fused_modalities: Tensor) -> Tensor:
        (x,) = features
        return torch.where(fused_modalities[:, :, None, None, None], x, -50.0)


class PositionInWindow(BrightestModality):
    """Gives category 1 a probability that grows along the last axis of the window, in a way easy to average by hand."""

    def fuse(self, features: tuple[Tensor, ...], fused_modalities: Tensor) -> Tensor:
        one = torch.tensor([0.1, 0.3, 0.6, 0.95]).expand(1, 4, 4, 4)
        return torch.stack([1 - one, one], dim=1).log()


def test_every_voxel_is_segmented_from_every_subset() -> None:
    image = torch.randn(4, 9, 4, 7, generator=torch.Generator().manual_seed(0))
    network = BrightestModality()
    prediction = segment_subsets(network, image, (4, 4, 4), MODALITY_SUBSETS)
    for subset, labels in zip(MODALITY_SUBSETS, prediction, strict=True):
        masked = torch.where(torch.tensor(subset)[:, None, None, None], image, -50.0)
        assert torch.equal(labels.long(), masked.argmax(dim=0))


def test_encoders_run_once_per_window_and_windows_overlap_by_half() -> None:
    network = BrightestModality()
    segment_subsets(network, torch.zeros(4, 9, 4, 7), (4, 4, 4), MODALITY_SUBSETS)
    # Starts 0, 2, 4, 5 on an axis of 9; 0 on one of 4; 0, 2, 3 on one of 7.
    assert network.encoded == 4 * 1 * 3


def test_probabilities_are_averaged_uniformly() -> None:
    prediction = segment_subsets(PositionInWindow(), torch.zeros(4, 4, 4, 6), (4, 4, 4), [(True,) * 4])[0]
    # Windows at 0 and 2: voxels 2 and 3 average (0.6 + 0.1) / 2 and (0.95 + 0.3) / 2.
    assert prediction[0, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_volume_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="axis of 3 voxels"):
        segment_subsets(BrightestModality(), torch.zeros(4, 3, 4, 4), (4, 4, 4), [(True,) * 4])


def test_tables_hold_every_subset_and_the_means() -> None:
    dice = torch.rand(2, 15, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = SubsetScores(("a", "b"), SCORES, dice)
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
    scores = SubsetScores(("a", "b"), SCORES, dice)
    torch.testing.assert_close(scores.mean[1], dice[1, 1])
    torch.testing.assert_close(scores.overall, scores.mean[without_t1].mean(dim=0))
    cells = [line.split("|")[5:9] for line in markdown_table(scores).splitlines()[2:-1]]
    assert [row == [" - "] * 4 for row in cells] == [not kept for kept in without_t1]
    rows = [line.split(",") for line in csv_table(scores).splitlines()[1:]]
    assert [row[2:] == [""] * 4 for row in rows[16:31]] == [not kept for kept in without_t1]
    assert float(rows[-1][2]) == pytest.approx(scores.overall[0].item(), abs=1e-6)
