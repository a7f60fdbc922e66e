"""Scans that are in a subject twice, with two sets of intensities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from gss_train.data.copies import _rank_correlation, copied_scans
from gss_train.data.datasets import MODALITIES

Scan = np.ndarray


def make_scans() -> dict[str, Scan]:
    """One tissue in four contrasts, most of it the same in T1 and T1ce."""
    generator = np.random.default_rng(0)
    shape = (40, 30, 20)
    tissue, enhancement, other = generator.normal(size=(3, *shape))
    contrasts = {"FLAIR": tissue + other, "T1ce": tissue + enhancement / 3, "T1": tissue, "T2": tissue**2 + other}
    brain = np.zeros(shape, bool)
    brain[5:-5, 5:-5, 3:-3] = True
    return {name: np.where(brain, 1000 + 100 * contrasts[name], 0).astype(np.int16) for name in MODALITIES}


def z_scores(scan: Scan) -> Scan:
    inside = scan[scan != 0]
    return np.where(scan != 0, (scan - inside.mean()) / inside.std(), 0).astype(np.float32)


COPIES: list[Callable[[Scan], Scan]] = [
    lambda scan: scan.astype(np.float64) * 0.37,
    lambda scan: np.sqrt(scan.astype(np.float32)),
    lambda scan: np.round(scan / scan.max() * 255).astype(np.uint8),
    lambda scan: np.where(scan != 0, scan.max() + 1 - scan, 0),
    z_scores,
]


@pytest.mark.parametrize("change", COPIES)
@pytest.mark.parametrize("modality", MODALITIES)
def test_copies_with_other_intensities_are_found(change: Callable[[Scan], Scan], modality: str) -> None:
    scans = make_scans()
    other = MODALITIES[MODALITIES.index(modality) - 1]
    found = copied_scans({**scans, other: change(scans[modality])})
    assert [set(pair) for pair in found] == [{modality, other}]


def test_scans_of_similar_contrast_are_no_copies() -> None:
    scans = make_scans()
    assert copied_scans(scans) == []
    assert copied_scans({"T1": scans["T1"]}) == []


def test_too_few_voxels_say_nothing() -> None:
    scans = {modality: scan[:, :, :5] for modality, scan in make_scans().items()}
    assert copied_scans({**scans, "T2": scans["T1"] * 2}) == [("T1", "T2")]
    few = {modality: scan[:, :, :4] for modality, scan in scans.items()}
    assert copied_scans({**few, "T2": few["T1"] * 2}) == [("T1", "T2")]
    fewer = {modality: scan[10:20, :, :4] for modality, scan in scans.items()}
    assert copied_scans({**fewer, "T2": fewer["T1"] * 2}) == []


def test_ranks_are_those_of_the_library() -> None:
    generator = np.random.default_rng(1)
    first = generator.integers(1, 20, (20, 10, 5))
    second = first + generator.integers(0, 10, first.shape)
    assert _rank_correlation(first, -second) == pytest.approx(stats.spearmanr(first.ravel(), second.ravel())[0])
