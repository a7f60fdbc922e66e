"""Faults and warnings for scans that networks cannot make sense of, and silence for what real data sets hold."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gss_train.data.datasets import MODALITIES
from gss_train.data.plausibility import implausible_scans, scans_without_background

SPACING = (4.0, 4.0, 4.0)

Scans = dict[str, np.ndarray]


def ellipsoid(axes: tuple[float, float, float]) -> np.ndarray:
    """An ellipsoid with half axes in millimetres, on the grid of BraTS at 4 mm."""
    shape = (60, 60, 39)
    place = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")) * 4
    return ((place / np.reshape(axes, (3, 1, 1, 1))) ** 2).sum(0) < 1


def brain_scans() -> Scans:
    """1.8 litres of brain, as large as they come."""
    brain = ellipsoid((70, 88, 70))
    generator = np.random.default_rng(0)
    return {m: np.where(brain, generator.normal(400, 60, brain.shape), 0).astype(np.int16) for m in MODALITIES}


def as_it_is(scans: Scans) -> Scans:
    return scans


def dark_fluid(scans: Scans) -> Scans:
    scans["T1"][ellipsoid((30, 35, 20))] = 0
    return scans


def few_negative(scans: Scans) -> Scans:
    scans["T2"][scans["T2"] > 500] *= -1
    return scans


def cut_to_the_brain(scans: Scans) -> Scans:
    places = np.nonzero(scans["T1"])
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in places)
    return {modality: voxels[box] for modality, voxels in scans.items()}


@pytest.mark.parametrize("usual", [as_it_is, dark_fluid, few_negative, cut_to_the_brain])
def test_no_false_alarm(usual) -> None:
    scans = usual(brain_scans())
    assert list(implausible_scans(scans, SPACING)) == []
    assert list(scans_without_background(scans)) == []


def test_whole_head_in_one_scan() -> None:
    scans = brain_scans()
    scans["T1"] = np.where(ellipsoid((85, 105, 77)), 300, 0)
    ((modality, problem, remedy),) = implausible_scans(scans, SPACING)
    assert modality == "T1"
    assert problem.startswith("T1 is other than 0 in 2.9 litres")
    assert remedy.startswith("skull-strip it")


def test_normalised_scan() -> None:
    scans = brain_scans()
    brain = scans["T2"] != 0
    scans["T2"] = np.where(brain, (scans["T2"] - 400.5) / 60, 0)
    ((modality, problem, _),) = implausible_scans(scans, SPACING)
    assert modality == "T2"
    assert problem.startswith("T2 is below 0 in 5")


def test_whole_volume_normalised_has_no_background() -> None:
    scans = brain_scans()
    scans["T2"] = (scans["T2"] - 100) / 50
    ((modality, problem, _),) = scans_without_background(scans)
    assert modality == "T2"
    assert re.fullmatch(r"T2 is 0 in 0\.\d% of its voxels; its background seems to be -2", problem)


@pytest.mark.parametrize("air", [0.1, 1.0])
def test_noise_around_the_head_is_no_background(air: float) -> None:
    """Scanners write 0 into a part of the air, if at all."""
    generator = np.random.default_rng(0)
    noise = generator.integers(1, 30, (60, 60, 39)) * (generator.random((60, 60, 39)) < 1 - air / 5)
    ((_, problem, _),) = scans_without_background({"FLAIR": noise})
    assert re.match(r"FLAIR is 0 in \d+\.\d% of its voxels$", problem)
