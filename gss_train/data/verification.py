"""Looks for faults in raw scans before anything is trained on them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gss_train.data.copies import copied_scans
from gss_train.data.datasets import LABEL, MODALITIES, Dataset, Subject
from gss_train.data.edges import edges_of_label
from gss_train.data.faults import Fault, Severity
from gss_train.data.grids import Spacing, differing_grids, wrong_sizes
from gss_train.data.plausibility import implausible_scans, scans_without_background
from gss_train.data.pool import map_unordered
from gss_train.data.registration import (
    Misplacement,
    edges_of_scans,
    misplaced_label,
    misplaced_scans,
)
from gss_train.data.resampling import ResamplingError, network_grid, place
from gss_train.data.volumes import Volume, VolumeError, read_volume, reorient

_UNKNOWN_CATEGORY = 255
_MAX_LABEL_VALUES = 20
_MAX_OUTSIDE_SHARE = 0.01
# Of a scan's brain. Brains that were stripped one by one differ by more at their borders than labels do.
_MAX_CUT_OFF_SHARE = 0.05
MEND_OR_RESPACE = "mend the headers, or give another --spacing"
_EXPORT_AGAIN = "export it again, as one volume of finite numbers, 0 outside the brain; or take it out of the data set"

_Value = TypeVar("_Value")
Categories = npt.NDArray[np.uint8]
Scans = Mapping[str, npt.NDArray[Any]]
"""By modality, [D,H,W] each."""
Finding = tuple[str | None, str, str]
"""Modality or `LABEL`, None for the subject as a whole; problem; remedy."""
Note = Callable[[Iterable[Finding], Severity], set[str | None]]
"""Takes findings down; returns what they are about."""


@dataclass(frozen=True)
class CheckedSubject:
    """What is known of a subject once its files have been read.

    Attributes:
        volumes: those that can be read, by modality and `LABEL`, in the orientation of `reorient`.
        orientation: of the first scan before that, such as "LPS"; empty where no scan can be read.
        digests: fingerprint of each scan's voxels, by modality.
        faults: all that was found.
    """

    volumes: dict[str, Volume] = field(repr=False)
    orientation: str
    digests: dict[str, str]
    faults: list[Fault]


def read_and_check(subject: Subject, dataset: Dataset, spacing: Spacing | None = None) -> CheckedSubject:
    """Reads all files of a subject, each once, brings them to one orientation and looks for faults.

    Arguments as of `check_volumes`.
    """
    volumes: dict[str, Volume] = {}
    orientation = ""
    faults = []
    for role, path in subject.files.items():
        try:
            volume = read_volume(path)
            volumes[role] = reorient(volume)
        except VolumeError as error:
            faults.append(_unusable(subject, path, error))
        else:
            orientation = orientation or volume.orientation
    faults += check_volumes(subject, dataset, volumes, spacing)
    digests = {role: _digest(volume) for role, volume in volumes.items() if role != LABEL}
    return CheckedSubject(volumes, orientation, digests, faults)


def check_volumes(
    subject: Subject, dataset: Dataset, volumes: Mapping[str, Volume], spacing: Spacing | None = None
) -> list[Fault]:
    """Looks for faults within one subject.

    Args:
        subject: whose files they are.
        dataset: its edition, which says what the label values are.
        volumes: by modality and `LABEL`; each from `reorient`; files that cannot be read are left out.
        spacing: voxel size that all will be brought to; None: they have to be on one grid as they are.

    Returns:
        The faults, an empty list if there are none. Without `spacing` volumes on different grids are not compared any
        further; with it, they are where their affines place them.
    """
    faults: list[Fault] = []

    def note(findings: Iterable[Finding], severity: Severity = "error") -> set[str | None]:
        found = list(findings)
        for role, problem, remedy in found:
            faults.append(Fault(subject.name, subject.files[role] if role else None, problem, remedy, severity))
        return {role for role, _, _ in found}

    infinite = note(_infinite(volumes))
    sound = {role: volume for role, volume in volumes.items() if role not in infinite}
    unknown = LABEL in sound and note(_unknown_values(sound[LABEL].voxels, dataset))
    grids = {role: volume.grid for role, volume in sound.items()}
    wrong = note(() if dataset.spacing is None else wrong_sizes(grids, dataset.spacing))
    differing = [finding for finding in differing_grids(grids) if finding[0] not in wrong]
    if wrong or (differing and (spacing is None or not _scans(sound))):
        note(differing)
        return faults
    if differing:
        note(_placed(differing), "warning")
        # Where there is none, nothing else can be told: all of the volume would be placed.
        if note(scans_without_background(_scans(sound))):
            return faults
        try:
            note(_cut_off(sound), "warning")
            sound = place(_without(sound, {LABEL} if unknown else ()), network_grid(sound, spacing))
        except ResamplingError as error:
            note([(None, str(error), MEND_OR_RESPACE)])
            return faults
    if _scans(sound):
        _compare(sound, subject, note)
    return faults


def _compare(volumes: Mapping[str, Volume], subject: Subject, note: Note) -> None:
    """Looks for faults in volumes on one grid, a scan at least."""
    scans, label = _scans(volumes), volumes[LABEL].voxels if LABEL in volumes else None
    brain = sum_of_scans(scans) > 0
    if not brain.any():
        note([_no_brain(scans)], "error")
        return
    unusable = note(_constant(scans, brain), "error")
    unusable |= note(scans_without_background(_without(scans, unusable)), "error")
    unusable |= note(_duplicates(_without(scans, unusable), subject.images), "error")
    usable = _without(scans, unusable)
    spacing = next(iter(volumes.values())).grid.spacing
    note(implausible_scans(usable, spacing), "warning")
    note(_copies(usable, subject.images), "warning")
    note(_misplaced(usable, label, spacing), "warning")
    if label is not None:
        note(_outside(label, scans), "warning")


def _scans(volumes: Mapping[str, Volume]) -> dict[str, npt.NDArray[Any]]:
    return {modality: volumes[modality].voxels for modality in MODALITIES if modality in volumes}


def sum_of_scans(scans: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """Adds scans [D,H,W] up; the brain is where the sum is above 0."""
    total = np.zeros(next(iter(scans.values())).shape, np.float32)
    for voxels in scans.values():
        total += voxels
    return total


def to_categories(label: npt.NDArray[Any], label_values: Sequence[int]) -> Categories:
    """Turns label values [D,H,W] into category indices, uint8; 255 where the value is none of `label_values`."""
    categories = np.full(label.shape, _UNKNOWN_CATEGORY, np.uint8)
    for category, value in enumerate(label_values):
        categories[label == value] = category
    return categories


def check_subjects(subjects: Sequence[Subject], digests: Mapping[str, Mapping[str, str]]) -> list[Fault]:
    """Finds scans that are in the data set under two subjects' names; the later one has the fault.

    Args:
        subjects: in their order.
        digests: by subject and modality, from `read_and_check`; subjects that it lacks are not compared.
    """
    owners: dict[str, tuple[Subject, str]] = {}
    faults = []
    for subject in subjects:
        for modality, digest in digests.get(subject.name, {}).items():
            owner, owner_modality = owners.setdefault(digest, (subject, modality))
            if owner is not subject:
                faults.append(
                    Fault(
                        subject.name,
                        subject.images[modality],
                        f"{modality} has the same voxels as {owner_modality} of {owner.name}",
                        "one of the two is a copy: find out whose scan it is and take the other subject out, lest "
                        "the test be on what was trained on",
                    )
                )
    return faults


def check_dataset(
    subjects: Sequence[Subject],
    dataset: Dataset,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    spacing: Spacing | None = None,
) -> list[Fault]:
    """Reads all files of all subjects and looks for faults in and between them; nothing is written.

    Args:
        subjects: raw subjects, with different names.
        dataset: their edition.
        workers: processes; 1 works in this process. Default: the processors at hand, at most 8.
        progress: called with the number of subjects read and that of all subjects.
        spacing: as of `check_volumes`.

    Returns:
        The faults in the order of `subjects`.
    """
    faults: dict[str, list[Fault]] = {}
    digests: dict[str, dict[str, str]] = {}
    check = partial(_faults_and_digests, dataset=dataset, spacing=spacing)
    for subject, found in map_unordered(check, subjects, workers, progress):
        faults[subject.name], digests[subject.name] = found
    copies = check_subjects(subjects, digests)
    return copies + [fault for subject in subjects for fault in faults[subject.name]]


def _faults_and_digests(
    subject: Subject, dataset: Dataset, spacing: Spacing | None
) -> tuple[list[Fault], dict[str, str]]:
    checked = read_and_check(subject, dataset, spacing)
    return checked.faults, checked.digests


def _digest(volume: Volume) -> str:
    """The same for the same values, whatever type of number and orientation they were stored with."""
    voxels = np.asfortranarray(volume.voxels, np.float32)
    return hashlib.blake2b(voxels.T.data, digest_size=16, salt=str(voxels.shape).encode()[:16]).hexdigest()


def _unusable(subject: Subject, path: Path, error: VolumeError) -> Fault:
    # An error in reading has a cause; the others are about what was read.
    intact = "replace it by an intact copy: download or export it again; or take it out of the data set"
    remedy = _EXPORT_AGAIN if error.__cause__ is None else intact
    return Fault(subject.name, path, str(error).removeprefix(f"{path}: "), remedy)


def _infinite(volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    for role, volume in volumes.items():
        voxels = volume.voxels
        count = 0 if voxels.dtype.kind in "iu" else int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
        if count:
            problem = f"{count} of {voxels.size} voxels are NaN or infinite, all should be finite"
            yield role, problem, _EXPORT_AGAIN


def _unknown_values(label: npt.NDArray[Any], dataset: Dataset) -> Iterator[Finding]:
    unknown = to_categories(label, dataset.label_values) == _UNKNOWN_CATEGORY
    if unknown.any():
        values = [f"{value:g}" for value in np.unique(label[unknown])]
        shown = ", ".join(values[:_MAX_LABEL_VALUES]) + (", ..." if len(values) > _MAX_LABEL_VALUES else "")
        problem = f"holds label values {shown}, should hold only {', '.join(map(str, dataset.label_values))}"
        yield LABEL, problem, "choose the --dataset whose values these are, or change the values in the file"


def _placed(differing: Iterable[Finding]) -> Iterator[Finding]:
    remedy = "placed by its affine, as --spacing asks for: look at it over the others, they have to be co-registered"
    for role, problem, _ in differing:
        yield role, problem, remedy


def _cut_off(volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    first = next(iter(_scans(volumes)))
    for role, volume in volumes.items():
        share = 1 - volume.grid.share_in(volumes[first].grid, volume.voxels != 0)
        if share > (_MAX_OUTSIDE_SHARE if role == LABEL else _MAX_CUT_OFF_SHARE):
            what = "label" if role == LABEL else f"brain in {role}"
            problem = f"{share:.1%} of the {what} lie outside the extent of {first}, and are cut off"
            yield role, problem, f"resample {first} onto a larger grid, with 0 where it was not scanned"


def _no_brain(scans: Scans) -> Finding:
    empty = not any(voxels.any() for voxels in scans.values())
    what = "are 0 everywhere" if empty else "have a sum that is nowhere above 0"
    problem = f"there is no brain: {', '.join(scans)} {what}"
    role = next(iter(scans)) if len(scans) == 1 else None
    return role, problem, "export the scans again, with the brain above 0 and all else 0"


def _constant(scans: Scans, brain: npt.NDArray[np.bool_]) -> Iterator[Finding]:
    for modality, voxels in scans.items():
        inside = voxels[brain]
        if inside.min() == inside.max():
            problem = f"every brain voxel of {modality} is {inside[0]:g}, values should differ"
            yield modality, problem, "export the scan again, or remove the file: a subject may lack scans"


def _duplicates(scans: Scans, files: Mapping[str, Path]) -> Iterator[Finding]:
    for first, second in itertools.combinations(scans, 2):
        if np.array_equal(scans[first], scans[second]):
            problem = f"{second} has the same voxels as {first} ({files[first].name})"
            yield second, problem, "put the right scan in its place, or remove the copy: a subject may lack scans"


def _copies(scans: Scans, files: Mapping[str, Path]) -> Iterator[Finding]:
    for first, second in copied_scans(scans):
        problem = f"{second} seems a copy of {first} ({files[first].name}) with other intensities, in the same order"
        yield second, problem, "compare the files in a viewer; put the right scan in its place, or remove the copy"


def _misplaced(scans: Scans, label: npt.NDArray[Any] | None, spacing: Spacing) -> Iterator[Finding]:
    edges = edges_of_scans(scans, spacing)
    misplaced = misplaced_scans(edges)
    placed = _without(edges, misplaced)
    for modality, how in misplaced.items():
        yield modality, *_misplacement(modality, how, f"the brain in {', '.join(placed)}")
    where = None if label is None else misplaced_label(edges_of_label(label != 0, spacing), placed)
    if where is not None:
        yield LABEL, *_misplacement("the label", where, "the tumour in the scans")


def _misplacement(name: str, how: Misplacement, others: str) -> tuple[str, str]:
    """Problem and remedy."""
    if how == "mirrored":
        problem = f"{name} seems mirrored left to right: flipped, it fits {others} better"
        return problem, "compare the files in a viewer; mirror this one back if it is so, or leave it out"
    problem = f"{name} does not lie where {others} lies: it seems moved, or another subject's"
    return (
        problem,
        "compare the files in a viewer; register it with the others, or put this subject's in its place",
    )


def _without(values: Mapping[str, _Value], names: Container[str | None]) -> dict[str, _Value]:
    return {name: value for name, value in values.items() if name not in names}


def _outside(label: npt.NDArray[Any], scans: Scans) -> Iterator[Finding]:
    tumour = label != 0
    marked = np.count_nonzero(tumour)
    for voxels in scans.values():
        tumour &= voxels == 0
    outside = np.count_nonzero(tumour)
    if outside > _MAX_OUTSIDE_SHARE * marked:
        problem = (
            f"{outside / marked:.1%} of the label ({outside} of {marked} voxels) lie outside the brain, where all "
            "scans are 0"
        )
        yield (
            LABEL,
            problem,
            "look at it over the scans in a viewer: is it this subject's label, and on the scans' grid?",
        )
