"""What is found in real scans: nothing as they are, and what is planted in them.

The folder that GSS_REAL_SCANS names holds subjects of BraTS2018, at any depth. All of them, with the rates that
docs/training.md shows:

    GSS_REAL_SCANS=... python -m pytest -n0 -s -m exhaustive tests/gss_train/data/test_real_checks.py
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

from gss_train.data.copies import copied_scans
from gss_train.data.datasets import LABEL, MODALITIES, Subject
from gss_train.data.edges import Edges, edges_of_label, edges_of_scan
from gss_train.data.registration import leads, misplaced_label, misplaced_scans
from gss_train.data.verification import check_volumes
from gss_train.data.volumes import Volume, read_volume, reorient
from tests.real_scans import DATASET, NOT_SET, real_subjects

ROLES = (*MODALITIES, LABEL)
MOVES = [(axis, millimetres) for axis in range(3) for millimetres in (-20, -10, -5, 5, 10, 20)]
FEW = 2


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    return real_subjects() or pytest.skip(NOT_SET)


def read(subject: Subject) -> dict[str, Volume]:
    return {role: reorient(read_volume(path)) for role, path in subject.files.items()}


def mirrored(volume: Volume) -> Volume:
    return replace(volume, voxels=volume.voxels[::-1])


def moved(volume: Volume, axis: int, millimetres: int) -> Volume:
    """What leaves the grid is lost."""
    distance = round(millimetres / volume.grid.spacing[axis])
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


@dataclass(frozen=True)
class Trial:
    """One file of a subject, as it is or replaced, and what is said of it.

    Attributes:
        subjects: whose the other files are, and whose this one is.
        kind: what was done to it.
        leads: over other places, beside each other scan; for a label, beside the scans that show the tumour.
        alone: what is said beside each other scan alone; nothing for a label.
        together: what is said beside all scans.
    """

    subjects: tuple[int, int]
    role: str
    kind: str
    leads: list[tuple[float, float]]
    alone: list[str]
    together: str


@pytest.fixture(scope="module")
def trials(subjects: list[Subject]) -> list[Trial]:
    everything = [{role: edges_of(role, volume) for role, volume in read(subject).items()} for subject in subjects]
    trials = []
    for number, subject in enumerate(subjects):
        sound, volumes = everything[number], read(subject)
        for role in ROLES:
            displaced = [(kind, number, edges_of(role, volume)) for kind, volume in displacements(volumes[role])]
            others = [("another subject's", n, other[role]) for n, other in enumerate(everything) if n != number]
            for kind, owner, edges in [("nothing", number, sound[role]), *displaced, *others]:
                trials.append(Trial((number, owner), role, kind, *compare(sound, role, edges)))
    return trials


def edges_of(role: str, volume: Volume) -> Edges:
    if role == LABEL:
        return edges_of_label(volume.voxels != 0, volume.grid.spacing)
    return edges_of_scan(volume.voxels, volume.grid.spacing)


def displacements(volume: Volume) -> Iterator[tuple[str, Volume]]:
    yield "mirrored", mirrored(volume)
    for axis, millimetres in MOVES:
        yield f"moved {abs(millimetres)} mm", moved(volume, axis, millimetres)


def compare(sound: dict[str, Edges], role: str, edges: Edges) -> tuple[list[tuple[float, float]], list[str], str]:
    scans = {modality: sound[modality] for modality in MODALITIES}
    if role == LABEL:
        said = misplaced_label(edges, scans) or "nothing"
        return [leads(edges, [scans["FLAIR"], scans["T2"]])], [], said
    others = [modality for modality in MODALITIES if modality != role]
    alone = [said_of(role, misplaced_scans({other: scans[other], role: edges})) for other in others]
    together = said_of(role, misplaced_scans({**scans, role: edges}))
    return [leads(edges, [scans[other]]) for other in others], alone, together


def said_of(role: str, misplaced: Mapping[str, str]) -> str:
    if not misplaced:
        return "nothing"
    return misplaced[role] if set(misplaced) == {role} else "another file"


@pytest.mark.exhaustive
def test_everything_planted_in_every_file_is_found(trials: list[Trial]) -> None:
    """One file at a time, beside all scans of the subject and beside each of them alone."""
    counts = Counter[tuple[str, str, str]]()
    for trial in trials:
        counts[trial.kind, "a label" if trial.role == LABEL else "one of four scans", trial.together] += 1
        counts.update((trial.kind, "one of two scans", said) for said in trial.alone)
    for (kind, where, said), count in sorted(counts.items()):
        print(f"\n{kind}, {where}: {said} said of {count}", end="")
    # Mirrored, a brain beside the middle of its grid moves.
    right = {"nothing": {"nothing"}, "mirrored": {"mirrored"}}
    assert [key for key in counts if key[2] not in right.get(key[0], {"elsewhere", "mirrored"})] == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", [0, 1])
def test_limits_set_on_half_of_the_subjects_hold_for_the_others(trials: list[Trial], part: int) -> None:
    """Limits in the middle between sound files and those of others, or moved by 5 mm; each file beside one other."""

    def leads_of(kind: str, half: int) -> np.ndarray:
        mine = [trial for trial in trials if trial.kind == kind and {n % 2 for n in trial.subjects} == {half}]
        return np.array([pair for trial in mine for pair in trial.leads])

    def middle(kind: str, which: int) -> float:
        least, most = leads_of("nothing", part)[:, which].min(), leads_of(kind, part)[:, which].max()
        return float(np.sqrt(least * most))

    limits = np.array([middle("another subject's", 0), middle("moved 5 mm", 1)])
    for kind in sorted({trial.kind for trial in trials}):
        fits = (leads_of(kind, 1 - part) > limits).all(axis=1)
        print(f"\nlimits {limits.round(3)}; {kind}: {fits.sum()} of {len(fits)} fit", end="")
        assert fits.all() if kind == "nothing" else not fits.any()


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
