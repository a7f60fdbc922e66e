"""Looks for faults in raw scans before anything is trained on them: what is wrong, where, and what to do about it."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import textwrap
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from gss_train.data.conventions import MODALITIES, Dataset
from gss_train.data.grids import differing_grids
from gss_train.data.mirroring import is_label_mirrored, mirrored_scans
from gss_train.data.pool import map_unordered
from gss_train.data.volumes import Volume, VolumeError, read_volume, reorient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gss_train.data.layouts import Subject

LABEL = "label"
Severity = Literal["error", "warning"]

_UNKNOWN_CATEGORY = 255
_MAX_LABEL_VALUES = 20
_MAX_OUTSIDE_SHARE = 0.01
_MIN_TEXT_WIDTH = 48
_EXPORT_AGAIN = "export it again, as one volume of finite numbers, 0 outside the brain; or take it out of the data set"

Categories = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with the raw files.

    Attributes:
        subject: its name.
        file: where it is; None when it is about the subject as a whole.
        problem: what is wrong, in one sentence.
        remedy: what to do about it.
        severity: an error makes the subject unusable, a warning leaves it to the reader.
    """

    subject: str
    file: Path | None
    problem: str
    remedy: str
    severity: Severity = "error"

    def to_json(self) -> dict[str, str | None]:
        """The fields as JSON values."""
        return {**vars(self), "file": None if self.file is None else str(self.file)}


@dataclass(frozen=True)
class CheckedSubject:
    """What is known of a subject once its files have been read.

    Attributes:
        volumes: those that can be read, by modality and "label", in the orientation of `reorient`.
        orientation: of the first scan before that, such as "LPS"; empty where no scan can be read.
        digests: fingerprint of each scan's voxels, by modality.
        faults: all that was found.
    """

    volumes: dict[str, Volume] = field(repr=False)
    orientation: str
    digests: dict[str, str]
    faults: list[Fault]


def raw_files(subject: Subject) -> dict[str, Path]:
    """Returns the files of a subject by modality, and "label" where it has one."""
    return dict(subject.images) if subject.label is None else {**subject.images, LABEL: subject.label}


def read_and_check(subject: Subject, dataset: Dataset) -> CheckedSubject:
    """Reads all files of a subject, each once, brings them to one orientation and looks for faults."""
    volumes: dict[str, Volume] = {}
    orientation = ""
    faults = []
    for role, path in raw_files(subject).items():
        try:
            volume = read_volume(path)
            volumes[role] = reorient(volume)
        except VolumeError as error:
            faults.append(_unusable(subject, path, error))
        else:
            orientation = orientation or volume.orientation
    faults += check_volumes(subject, dataset, volumes)
    digests = {role: _digest(volume) for role, volume in volumes.items() if role != LABEL}
    return CheckedSubject(volumes, orientation, digests, faults)


def check_volumes(subject: Subject, dataset: Dataset, volumes: Mapping[str, Volume]) -> list[Fault]:
    """Looks for faults within one subject.

    Args:
        subject: whose files they are.
        dataset: its edition, which says what the label values are.
        volumes: by modality and "label"; each from `reorient`; files that cannot be read are left out.

    Returns:
        The faults, an empty list if there are none. Where the grids differ, files are not compared any further.
    """
    files = raw_files(subject)
    faults = list(_check_numbers(subject, files, volumes))
    sound = {role: volume for role, volume in volumes.items() if files[role] not in {fault.file for fault in faults}}
    if LABEL in sound:
        faults += _check_label_values(subject, dataset, sound[LABEL])
    grids = differing_grids(sound, dataset.spacing)
    faults += [Fault(subject.name, files[role], problem, remedy) for role, (problem, remedy) in grids.items()]
    scans = {modality: sound[modality].voxels for modality in MODALITIES if modality in sound}
    if grids or not scans:
        return faults
    total = sum_of_scans(scans)
    if not (total > 0).any():
        return [*faults, _no_brain(subject, files, scans)]
    constant = list(_check_contrast(subject, scans, total > 0))
    faults += constant
    varied = {m: scan for m, scan in scans.items() if files[m] not in {fault.file for fault in constant}}
    faults += _check_duplicates(subject, varied)
    faults += _check_sides(subject, varied, sound.get(LABEL))
    if LABEL in sound:
        faults += _check_label_place(subject, scans, sound[LABEL])
    return faults


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
) -> list[Fault]:
    """Reads all files of all subjects and looks for faults in and between them; nothing is written.

    Args:
        subjects: raw subjects, with different names.
        dataset: their edition.
        workers: processes; 1 works in this process. Default: the processors at hand, at most 8.
        progress: called with the number of subjects read and that of all subjects.

    Returns:
        The faults in the order of `subjects`.
    """
    faults: dict[str, list[Fault]] = {}
    digests: dict[str, dict[str, str]] = {}
    report = progress or (lambda _finished, _total: None)
    report(0, len(subjects))
    for subject, findings in map_unordered(partial(_check_subject, dataset=dataset), subjects, workers):
        faults[subject.name], digests[subject.name] = findings
        report(len(faults), len(subjects))
    copies = check_subjects(subjects, digests)
    return copies + [fault for subject in subjects for fault in faults[subject.name]]


def _check_subject(subject: Subject, dataset: Dataset) -> tuple[list[Fault], dict[str, str]]:
    checked = read_and_check(subject, dataset)
    return checked.faults, checked.digests


def describe_faults(faults: Sequence[Fault], width: int | None = None) -> str:
    """Lists faults for people, errors first: a table of subject, file, and problem with its remedy.

    Args:
        faults: one or more.
        width: characters in a line; by default those of the terminal, or 160 elsewhere.
    """
    files = [fault.file.absolute() for fault in faults if fault.file is not None]
    folder = Path(os.path.commonpath([path.parent for path in files])) if files else None
    ordered = sorted(faults, key=lambda fault: (fault.severity, fault.subject))
    places = [str(f.file.absolute().relative_to(folder)) if f.file is not None and folder else "-" for f in ordered]
    names = [fault.subject for fault in ordered]
    first, second = (max(map(len, (title, *cells))) + 2 for title, cells in (("subject", names), ("file", places)))
    width = shutil.get_terminal_size((160, 24)).columns if width is None else width
    text_width = max(width - first - second, _MIN_TEXT_WIDTH)
    lines = [f"Files in {folder}"] if folder else []
    lines += [f"{'subject':{first}}{'file':{second}}problem, and -> remedy"]
    for fault, name, place in zip(ordered, names, places, strict=True):
        problem = _wrap(f"{fault.severity}: {fault.problem}", text_width) + _wrap(f"-> {fault.remedy}", text_width)
        cells = itertools.chain([f"{name:{first}}{place:{second}}"], itertools.repeat(" " * (first + second)))
        lines += [cell + text for cell, text in zip(cells, problem, strict=False)]
    return "\n".join(lines)


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False)


def _digest(volume: Volume) -> str:
    """The same for the same values, whatever type of number and orientation they were stored with."""
    voxels = np.asfortranarray(volume.voxels, np.float32)
    return hashlib.blake2b(voxels.T.data, digest_size=16, salt=str(voxels.shape).encode()[:16]).hexdigest()


def _unusable(subject: Subject, path: Path, error: VolumeError) -> Fault:
    # An error in reading has a cause; the others are about what was read.
    if error.__cause__ is not None:
        remedy = "replace it by an intact copy: download or export it again; or take it out of the data set"
    else:
        remedy = _EXPORT_AGAIN
    return Fault(subject.name, path, str(error).removeprefix(f"{path}: "), remedy)


def _check_numbers(subject: Subject, files: Mapping[str, Path], volumes: Mapping[str, Volume]) -> Iterator[Fault]:
    for role, volume in volumes.items():
        voxels = volume.voxels
        count = 0 if voxels.dtype.kind in "iu" else int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
        if count:
            yield Fault(
                subject.name,
                files[role],
                f"{count} of {voxels.size} voxels are NaN or infinite, all should be finite",
                _EXPORT_AGAIN,
            )


def _no_brain(subject: Subject, files: Mapping[str, Path], scans: Mapping[str, npt.NDArray[Any]]) -> Fault:
    empty = not any(voxels.any() for voxels in scans.values())
    problem = "are 0 everywhere" if empty else "have a sum that is nowhere above 0"
    return Fault(
        subject.name,
        files[next(iter(scans))] if len(scans) == 1 else None,
        f"there is no brain: {', '.join(scans)} {problem}",
        "export the scans again, with the brain above 0 and all else 0",
    )


def _check_contrast(
    subject: Subject, scans: Mapping[str, npt.NDArray[Any]], brain: npt.NDArray[np.bool_]
) -> Iterator[Fault]:
    for modality, voxels in scans.items():
        inside = voxels[brain]
        if inside.min() == inside.max():
            yield Fault(
                subject.name,
                subject.images[modality],
                f"every brain voxel of {modality} is {inside[0]:g}, values should differ",
                "export the scan again, or remove the file: a subject may lack scans",
            )


def _check_duplicates(subject: Subject, scans: Mapping[str, npt.NDArray[Any]]) -> Iterator[Fault]:
    for first, second in itertools.combinations(scans, 2):
        if np.array_equal(scans[first], scans[second]):
            yield Fault(
                subject.name,
                subject.images[second],
                f"{second} has the same voxels as {first} ({subject.images[first].name})",
                "put the right scan in its place, or remove the copy: a subject may lack scans",
            )


def _check_label_values(subject: Subject, dataset: Dataset, label: Volume) -> Iterator[Fault]:
    unknown = to_categories(label.voxels, dataset.label_values) == _UNKNOWN_CATEGORY
    if unknown.any():
        values = [f"{value:g}" for value in np.unique(label.voxels[unknown])]
        shown = ", ".join(values[:_MAX_LABEL_VALUES]) + (", ..." if len(values) > _MAX_LABEL_VALUES else "")
        yield Fault(
            subject.name,
            subject.label,
            f"holds label values {shown}, should hold only {', '.join(map(str, dataset.label_values))}",
            "choose the --dataset whose values these are, or change the values in the file",
        )


def _check_label_place(subject: Subject, scans: Mapping[str, npt.NDArray[Any]], label: Volume) -> Iterator[Fault]:
    tumour = label.voxels != 0
    marked = np.count_nonzero(tumour)
    for voxels in scans.values():
        tumour &= voxels == 0
    outside = np.count_nonzero(tumour)
    if outside > _MAX_OUTSIDE_SHARE * marked:
        yield Fault(
            subject.name,
            subject.label,
            f"{outside / marked:.1%} of the label ({outside} of {marked} voxels) lie outside the brain, where all "
            "scans are 0",
            "look at it over the scans in a viewer: is it this subject's label, and on the scans' grid?",
            "warning",
        )


def _check_sides(subject: Subject, scans: Mapping[str, npt.NDArray[Any]], label: Volume | None) -> Iterator[Fault]:
    remedy = "compare the files in a viewer; mirror this one back if it is so, or leave it out"
    mirrored = mirrored_scans(scans)
    for modality in mirrored:
        others = ", ".join(other for other in scans if other not in mirrored)
        problem = f"{modality} seems mirrored left to right: flipped, it fits {others} better"
        yield Fault(subject.name, subject.images[modality], problem, remedy, "warning")
    if label is not None and is_label_mirrored(label.voxels != 0, scans):
        problem = "the label seems mirrored left to right: flipped, it fits the tumour in the scans better"
        yield Fault(subject.name, subject.label, problem, remedy, "warning")
