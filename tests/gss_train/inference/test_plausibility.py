"""Warnings for scans that networks cannot make sense of, and silence for what real data sets hold."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from gss_train.data import DATASETS, MODALITIES, Subject
from gss_train.inference.plausibility import implausible_scans, scans_without_background
from gss_train.inference.scans import read_scans
from gss_train.phantom import generate_phantoms
from tests.gss_train.inference.tiny import scan_files

SPACING = (4.0, 4.0, 4.0)
FILES = {modality: Path(f"{modality}.nii.gz") for modality in MODALITIES}

Scans = dict[str, np.ndarray]


def ellipsoid(axes: tuple[float, float, float], shift: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """An ellipsoid with half axes in millimetres, on the grid of BraTS at 4 mm."""
    shape = (60, 60, 39)
    place = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")) * 4
    offset = place - np.reshape(shift, (3, 1, 1, 1))
    return ((offset / np.reshape(axes, (3, 1, 1, 1))) ** 2).sum(0) < 1


def brain_scans(axes: tuple[float, float, float] = (70, 88, 70)) -> Scans:
    """1.8 litres of brain, as large as they come, seen in four contrasts."""
    brain = ellipsoid(axes)
    generator = np.random.default_rng(0)
    return {m: np.where(brain, generator.normal(400, 60, brain.shape), 0).astype(np.int16) for m in MODALITIES}


def as_it_is(scans: Scans) -> Scans:
    return scans


def scanned_in_part(scans: Scans) -> Scans:
    """Thirty millimetres of the top were not in the field of view of one scan."""
    scans["FLAIR"][:, :, 30:] = 0
    return scans


def dark_fluid(scans: Scans) -> Scans:
    scans["T1"][ellipsoid((30, 35, 20))] = 0
    return scans


def few_negative(scans: Scans) -> Scans:
    scans["T2"][scans["T2"] > 500] *= -1
    return scans


def edges_eroded(scans: Scans) -> Scans:
    return scans | {"T1ce": np.where(ellipsoid((66, 84, 66)), scans["T1ce"], 0)}


def cut_to_the_brain(scans: Scans) -> Scans:
    places = np.nonzero(scans["T1"])
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in places)
    return {modality: voxels[box] for modality, voxels in scans.items()}


def one_scan(scans: Scans) -> Scans:
    return {"T1": scans["T1"]}


@pytest.mark.parametrize(
    "usual", [as_it_is, scanned_in_part, dark_fluid, few_negative, edges_eroded, cut_to_the_brain, one_scan]
)
def test_no_false_alarm(usual) -> None:
    scans = usual(brain_scans())
    assert implausible_scans(FILES, scans, SPACING) == []
    assert scans_without_background(FILES, scans) == []


def test_no_false_alarm_on_phantoms(tmp_path: Path) -> None:
    (folder,) = generate_phantoms("brats2020", tmp_path, 1, 3, (24, 24, 24), 1)
    assert read_scans(Subject("phantom", None, scan_files(folder), None), DATASETS["brats2020"]).warnings == ()


def test_whole_head_in_one_scan() -> None:
    scans = brain_scans()
    scans["T1"] = np.where(ellipsoid((85, 105, 77)), 300, 0)
    (doubt,) = implausible_scans(FILES, scans, SPACING)
    assert doubt.startswith("T1.nii.gz: T1 is other than 0 in 2.9 litres")
    assert "not to be skull-stripped" in doubt


@pytest.mark.parametrize("moved", MODALITIES)
def test_scan_that_was_moved(moved: str) -> None:
    scans = brain_scans()
    scans[moved] = np.roll(scans[moved], 3, axis=0)
    (doubt,) = implausible_scans(FILES, scans, SPACING)
    assert doubt.startswith(f"{moved}.nii.gz: {moved} and ")
    assert "not to be co-registered" in doubt


def test_normalised_scan() -> None:
    scans = brain_scans()
    brain = scans["T2"] != 0
    scans["T2"] = np.where(brain, (scans["T2"] - 400.5) / 60, 0)
    (doubt,) = implausible_scans(FILES, scans, SPACING)
    assert doubt.startswith("T2.nii.gz: T2 is below 0 in 5")


def test_whole_volume_normalised_has_no_background() -> None:
    scans = brain_scans()
    scans["T2"] = (scans["T2"] - 100) / 50
    (fault,) = scans_without_background(FILES, scans)
    assert re.match(r"T2\.nii\.gz: T2 is 0 in 0\.\d% .* its background seems to be -2; ", fault)


def test_noise_around_the_head_is_no_background() -> None:
    noise = np.random.default_rng(0).integers(1, 30, (60, 60, 39))
    (fault,) = scans_without_background(FILES, {"FLAIR": noise})
    assert "FLAIR is 0 in 0" in fault
