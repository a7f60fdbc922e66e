"""Files that do not lie where the others of their subject lie, on made-up heads and on phantoms.

`test_real_checks.py` has real ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from gss_train.data.datasets import DATASETS, MODALITIES, Subject
from gss_train.data.edges import edges_of_label
from gss_train.data.layouts import find_subjects
from gss_train.data.registration import edges_of_scans, misplaced_label, misplaced_scans
from gss_train.data.verification import check_volumes
from gss_train.data.volumes import Volume, read_volume, reorient
from gss_train.phantom import generate_phantoms
from tests.gss_train.data.raw_files import Raw, make_folded_head

SHAPE = (40, 44, 36)
SPACING = (4.0, 4.0, 4.0)


@pytest.fixture(scope="module")
def head() -> Raw:
    return make_folded_head(SHAPE, 1)


def misplaced(images: dict[str, np.ndarray], spacing: tuple[float, float, float] = SPACING) -> dict[str, str]:
    return dict(misplaced_scans(edges_of_scans(images, spacing)))


def moved(axis: int, voxels: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda scan: np.roll(scan, voxels, axis)


FAULTS = [
    pytest.param(lambda scan: scan[::-1], "mirrored", id="mirrored"),
    *(
        pytest.param(moved(axis, voxels), "elsewhere", id=f"moved {4 * voxels} mm along axis {axis}")
        for axis, voxels in itertools.product(range(3), (-2, 5))
    ),
    pytest.param(lambda scan: scan[:, ::-1], "elsewhere", id="back to front"),
]


@pytest.mark.parametrize(("damage", "how"), FAULTS)
def test_the_one_that_was_displaced_is_named(head: Raw, damage, how: str) -> None:
    for modality in MODALITIES:
        damaged = {**head.images, modality: damage(head.images[modality])}
        assert misplaced(damaged) == {modality: how}
        two = {name: damaged[name] for name in MODALITIES if name in {modality, "T1", "FLAIR"}}
        first, second = list(two)[:2]
        assert misplaced({first: head.images[first], second: damage(head.images[second])}) == {second: how}


def test_the_scan_of_another_is_named(head: Raw) -> None:
    """Heads of one atlas lie in the same place, only their folds differ."""
    other = make_folded_head(SHAPE, 2)
    for modality in MODALITIES:
        assert misplaced({**head.images, modality: other.images[modality]}) == {modality: "elsewhere"}
    half = {name: (head if name in {"FLAIR", "T2"} else other).images[name] for name in MODALITIES}
    assert misplaced(half) == {"T1ce": "elsewhere", "T1": "elsewhere"}


@pytest.mark.parametrize("damage", [lambda scan: scan, lambda scan: scan[::-1], moved(1, 3)])
def test_what_lies_together_fits(head: Raw, damage) -> None:
    scans = {modality: damage(scan) for modality, scan in head.images.items()}
    assert misplaced(scans) == {}
    assert misplaced_label(edges_of_label(damage(head.label) > 0, SPACING), edges_of_scans(scans, SPACING)) is None
    for pair in itertools.combinations(MODALITIES, 2):
        assert misplaced({modality: scans[modality] for modality in pair}) == {}
    assert misplaced({"T1": scans["T1"]}) == {}
    assert misplaced({}) == {}


def scanned_in_part(scan: np.ndarray) -> np.ndarray:
    return np.where(np.arange(SHAPE[2]) < 22, scan, 0)


def eroded(scan: np.ndarray) -> np.ndarray:
    return np.where(ndimage.binary_erosion(scan != 0), scan, 0)


@pytest.mark.parametrize("usual", [scanned_in_part, eroded])
@pytest.mark.parametrize("modality", MODALITIES)
def test_other_brain_masks_are_no_fault(head: Raw, usual, modality: str) -> None:
    assert misplaced({**head.images, modality: usual(head.images[modality])}) == {}


def test_a_scan_that_has_nothing_of_the_others_brain_does_not_fit(head: Raw) -> None:
    beside = {name: np.pad(scan, ((0, SHAPE[0]), (0, 0), (0, 0))) for name, scan in head.images.items()}
    beside["T1"] = np.roll(beside["T1"], SHAPE[0], 0)
    assert misplaced(beside) == {"T1": "elsewhere"}


@pytest.mark.parametrize(
    ("repeats", "spacing"), [((4, 4, 4), (1.0, 1.0, 1.0)), ((8, 8, 1), (0.5, 0.5, 4.0)), ((1, 2, 4), (4.0, 2.0, 1.0))]
)
def test_any_voxel_size_will_do(head: Raw, repeats: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    scans = dict(head.images)
    for axis, times in enumerate(repeats):
        scans = {modality: scan.repeat(times, axis) for modality, scan in scans.items()}
    assert misplaced(scans, spacing) == {}
    assert misplaced({**scans, "T1": scans["T1"][::-1]}, spacing) == {"T1": "mirrored"}
    # A margin that is no multiple of what is averaged moves the middle of the grid, the flip's too.
    uneven = {modality: np.pad(scan, ((0, 1), (1, 2), (3, 0))) for modality, scan in scans.items()}
    assert misplaced({**uneven, "T1": uneven["T1"][::-1]}, spacing) == {"T1": "mirrored"}


def test_nothing_is_said_of_what_is_too_coarse_or_too_small(head: Raw) -> None:
    scans = {**head.images, "T1": head.images["T1"][::-1]}
    assert misplaced(scans, (8.0, 8.0, 8.0)) == {}
    assert misplaced(scans, (1.0, 1.0, 1.0)) == {}
    assert misplaced({modality: scan[:, :, 16:18] for modality, scan in scans.items()}) == {}


@pytest.mark.parametrize(("damage", "how"), [case for case in FAULTS if case.id != "back to front"])
def test_a_label_that_was_displaced_is_told(head: Raw, damage, how: str) -> None:
    tumour = head.label > 0
    for modalities in (MODALITIES, ("FLAIR",), ("FLAIR", "T1")):
        edges = edges_of_scans({modality: head.images[modality] for modality in modalities}, SPACING)
        assert misplaced_label(edges_of_label(tumour, SPACING), edges) is None
        assert misplaced_label(edges_of_label(damage(tumour), SPACING), edges) == how


def test_a_label_is_told_by_its_place_alone(head: Raw) -> None:
    """Not where the scans do not show the tumour, or it is too small to have a border."""
    edges = edges_of_scans(head.images, SPACING)
    assert misplaced_label(edges_of_label(make_folded_head(SHAPE, 3).label > 0, SPACING), edges) == "elsewhere"
    assert (
        misplaced_label(edges_of_label(head.label[::-1] > 0, SPACING), {"T1": edges["T1"], "T1ce": edges["T1ce"]})
        is None
    )
    assert misplaced_label(edges_of_label(np.zeros(SHAPE, bool), SPACING), edges) is None
    speck = np.zeros(SHAPE, bool)
    speck[20:22, 20:22, 20:22] = True
    assert misplaced_label(edges_of_label(speck, SPACING), edges) is None


def test_a_tumour_across_the_midline_has_no_side() -> None:
    central = make_folded_head(SHAPE, 4, tumour_side=0)
    edges = edges_of_scans(central.images, SPACING)
    assert misplaced_label(edges_of_label(central.label[::-1] > 0, SPACING), edges) is None


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Subject, dict[str, Volume]]]:
    root = tmp_path_factory.mktemp("phantoms")
    generate_phantoms("brats2020", root, 2, 3, (48, 56, 48), 1, compressed=False)
    subjects = find_subjects(root, DATASETS["brats2020"])
    return [
        (subject, {role: reorient(read_volume(path)) for role, path in subject.files.items()}) for subject in subjects
    ]


def files_with_faults(subject: Subject, volumes: dict[str, Volume]) -> list[Path | None]:
    return [fault.file for fault in check_volumes(subject, DATASETS["brats2020"], volumes)]


def test_phantoms_are_sound_and_their_faults_found(phantoms: list[tuple[Subject, dict[str, Volume]]]) -> None:
    (subject, volumes), (_, others) = phantoms
    assert [files_with_faults(*phantom) for phantom in phantoms] == [[], []]
    for role in (*MODALITIES, "label"):
        scan = volumes[role]
        displaced = [scan.voxels[::-1], np.roll(scan.voxels, 3, 1), others[role].voxels]
        for voxels in displaced:
            damaged = {**volumes, role: Volume(voxels, scan.affine)}
            assert set(files_with_faults(subject, damaged)) == {subject.files[role]}
