"""What is found in real scans: nothing as they are, and what is planted in them.

The folder that GSS_REAL_SCANS names holds subjects of BraTS2018, at any depth. All of them, with the rates that
docs/training.md shows:

    GSS_REAL_SCANS=... python -m pytest -n0 -s -m exhaustive tests/gss_train/data/test_real_checks.py
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from gss_train.data.copies import copied_scans
from gss_train.data.datasets import DATASETS, LABEL, MODALITIES, Subject
from gss_train.data.edges import Edges, edges_of_label, edges_of_scan
from gss_train.data.layouts import find_subjects
from gss_train.data.registration import leads, misplaced_label, misplaced_scans
from gss_train.data.verification import check_volumes
from gss_train.data.volumes import Volume, read_volume, reorient

DATASET = DATASETS["brats2018"]
ROLES = (*MODALITIES, LABEL)
MOVES = [(axis, millimetres) for axis in range(3) for millimetres in (-20, -10, -5, 5, 10, 20)]
FEW = 3


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    if "GSS_REAL_SCANS" not in os.environ:
        pytest.skip("GSS_REAL_SCANS names no folder with real scans")
    return find_subjects(Path(os.environ["GSS_REAL_SCANS"]), DATASET)


def read(subject: Subject) -> dict[str, Volume]:
    return {role: reorient(read_volume(path)) for role, path in subject.files.items()}


def mirrored(volume: Volume) -> Volume:
    return replace(volume, voxels=volume.voxels[::-1])


def moved(volume: Volume, axis: int, millimetres: int) -> Volume:
    """What leaves the grid is lost."""
    distance = round(millimetres / volume.spacing[axis])
    voxels = np.roll(volume.voxels, distance, axis)
    lost = slice(distance) if distance > 0 else slice(distance, None)
    voxels[(*(slice(None),) * axis, lost)] = 0
    return replace(volume, voxels=voxels)


def found(subject: Subject, volumes: dict[str, Volume]) -> list[tuple[str, str, str]]:
    """Role, severity and problem of every fault."""
    roles = {path: role for role, path in subject.files.items()}
    faults = check_volumes(subject, DATASET, volumes)
    return [(roles[fault.file], fault.severity, fault.problem) for fault in faults if fault.file is not None]


def test_real_subjects_have_no_faults_but_those_planted(subjects: list[Subject]) -> None:
    """A few subjects, in the order of their names; in each file of each another fault."""
    few = [(subject, read(subject)) for subject in subjects[:FEW]]
    for number, (subject, volumes) in enumerate(few):
        assert found(subject, volumes) == []
        _, others = few[number - 1]
        plants: list[Callable[[str], Volume]] = [
            lambda role, volumes=volumes: mirrored(volumes[role]),
            lambda role, volumes=volumes: moved(volumes[role], 0, 5),
            lambda role, volumes=volumes: moved(volumes[role], 1, -10),
            lambda role, volumes=volumes: moved(volumes[role], 2, 20),
            lambda role, others=others: others[role],
        ]
        for index, role in enumerate(ROLES):
            plant = plants[(index + number) % len(plants)]
            faults = found(subject, {**volumes, role: plant(role)})
            # A label that was moved may lie outside the brain, too.
            assert {(where, severity) for where, severity, _ in faults} == {(role, "warning")}
            expected = "mirrored left to right" if plant is plants[0] else "does not lie where"
            assert sum(expected in problem for _, _, problem in faults) == 1


@dataclass
class Sample:
    """Edges of a subject's files: as they are, and mirrored and moved, each with what was done."""

    sound: dict[str, Edges]
    displaced: dict[str, list[tuple[str, Edges]]]


@pytest.fixture(scope="module")
def samples(subjects: list[Subject]) -> list[Sample]:
    return [sample_of(read(subject)) for subject in subjects]


def sample_of(volumes: dict[str, Volume]) -> Sample:
    def edges_of(role: str, volume: Volume) -> Edges:
        if role == LABEL:
            return edges_of_label(volume.voxels != 0, volume.spacing)
        return edges_of_scan(volume.voxels, volume.spacing)

    sound = {role: edges_of(role, volumes[role]) for role in ROLES}
    displaced = {role: [("mirrored", edges_of(role, mirrored(volumes[role])))] for role in ROLES}
    for role, (axis, millimetres) in itertools.product(ROLES, MOVES):
        edges = edges_of(role, moved(volumes[role], axis, millimetres))
        displaced[role].append((f"moved {abs(millimetres)} mm", edges))
    return Sample(sound, displaced)


def planted(sample: Sample, role: str, samples: list[Sample]) -> list[tuple[str, Edges]]:
    others = [("another subject's", other.sound[role]) for other in samples if other is not sample]
    return [*sample.displaced[role], *others]


def how(kind: str) -> str:
    return "mirrored" if kind == "mirrored" else "elsewhere"


@pytest.mark.exhaustive
def test_everything_planted_in_every_file_is_found(samples: list[Sample]) -> None:
    """One file at a time, beside all scans of the subject and beside each of them alone."""
    tried, right = Counter[tuple[str, str]](), Counter[tuple[str, str]]()

    def count(kind: str, where: str, correct: bool) -> None:
        tried[kind, where] += 1
        right[kind, where] += correct

    for sample in samples:
        scans = {modality: sample.sound[modality] for modality in MODALITIES}
        count("nothing", "one of four scans", misplaced_scans(scans) == {})
        count("nothing", "label", misplaced_label(sample.sound[LABEL], scans) is None)
        for pair in itertools.combinations(MODALITIES, 2):
            count("nothing", "one of two scans", misplaced_scans({name: scans[name] for name in pair}) == {})
        for kind, border in planted(sample, LABEL, samples):
            count(kind, "label", misplaced_label(border, scans) == how(kind))
        for modality, other in itertools.permutations(MODALITIES, 2):
            for kind, edges in planted(sample, modality, samples):
                two = misplaced_scans({other: scans[other], modality: edges})
                count(kind, "one of two scans", two == {modality: how(kind)})
        for modality in MODALITIES:
            for kind, edges in planted(sample, modality, samples):
                count(kind, "one of four scans", misplaced_scans({**scans, modality: edges}) == {modality: how(kind)})
    for kind, where in sorted(tried):
        print(f"\n{kind}, {where}: right in {right[kind, where]} of {tried[kind, where]}", end="")
    misses = tried - right
    # A move of 5 mm mirrors a brain that lies beside the middle of its grid nearly into its place.
    assert sum(misses.values()) <= 1
    assert not any(misses[kind, where] for kind, where in tried if kind != "moved 5 mm")


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", [0, 1])
def test_limits_set_on_half_of_the_subjects_hold_for_the_others(samples: list[Sample], part: int) -> None:
    """Limits in the middle between sound files and those of others, or moved by 5 mm; each file beside one other."""
    chosen, others = compared(samples[part::2]), compared(samples[1 - part :: 2])
    least_lead = middle(chosen["nothing"][:, 0].min(), chosen["another subject's"][:, 0].max())
    least_over_best = middle(chosen["nothing"][:, 1].min(), chosen["moved 5 mm"][:, 1].max())
    for kind, found in others.items():
        fits = (found[:, 0] > least_lead) & (found[:, 1] > least_over_best)
        print(f"\nlimits {least_lead:.3f}, {least_over_best:.3f}; {kind}: fits in {fits.sum()} of {len(fits)}", end="")
        assert fits.all() if kind == "nothing" else not fits.any()


def compared(samples: list[Sample]) -> dict[str, np.ndarray]:
    """By what is planted, lead and lead over the best, [number,2]."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for sample, role in itertools.product(samples, ROLES):
        beside = [[sample.sound[other]] for other in MODALITIES if other != role]
        if role == LABEL:
            beside = [[sample.sound["FLAIR"], sample.sound["T2"]]]
        for kind, edges in [("nothing", sample.sound[role]), *planted(sample, role, samples)]:
            rows.setdefault(kind, []).extend(leads(edges, others) for others in beside)
    return {kind: np.array(found) for kind, found in rows.items()}


def middle(first: float, second: float) -> float:
    return float(np.sqrt(first * second))


@pytest.mark.exhaustive
def test_copies_are_told_from_real_scans(subjects: list[Subject]) -> None:
    """Whatever their intensities became."""
    copies = 0
    for subject in subjects:
        scans = {role: volume.voxels for role, volume in read(subject).items() if role != LABEL}
        assert copied_scans(scans) == []
        for first, second in itertools.permutations(MODALITIES, 2):
            scan = scans[first].astype(np.float32)
            for copy in (scan * 0.37, np.sqrt(scan.clip(0)), np.round(scan / scan.max() * 255)):
                copies += 1
                assert [set(pair) for pair in copied_scans({**scans, second: copy})] == [{first, second}]
    print(f"\n{copies} copies found")
