"""Finds the subjects of a BraTS edition in the folders and file names it was released with."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gss_train.data.conventions import MODALITIES, Dataset
from gss_train.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_GRADES = ("HGG", "LGG")
_LABEL = "label"
_ROLES = (*MODALITIES, _LABEL)
_MAX_LISTED = 20

# BraTS2015 names a folder per file, the others a file per role.
_FOLDER_PATTERNS = {
    "FLAIR": re.compile(r"VSD\.Brain.*\.MR_Flair\..+"),
    "T1ce": re.compile(r"VSD\.Brain.*\.MR_T1c\..+"),
    "T1": re.compile(r"VSD\.Brain.*\.MR_T1\..+"),
    "T2": re.compile(r"VSD\.Brain.*\.MR_T2\..+"),
    _LABEL: re.compile(r"VSD\.Brain.*\.OT\..+"),
}
_FILE_SUFFIXES = {"FLAIR": "flair", "T1ce": "t1ce", "T1": "t1", "T2": "t2", _LABEL: "seg"}
_NIFTI_ENDINGS = (".nii.gz", ".nii")
# The label of BraTS20_Training_355 in the widespread Kaggle copy.
_MISNAMED_LABEL = "W39_1998.09.19_Segm"


class LayoutError(UserError):
    """The data root does not hold the expected subjects; the message shows the expected layout."""


@dataclass(frozen=True)
class Subject:
    """The raw files of one subject.

    Attributes:
        name: unique within the data set. The folder's name; for BraTS2015, whose folder names occur in both grades,
            the grade and the folder's name, such as `HGG_brats_2013_pat0001_1`.
        grade: "HGG", "LGG", or None where the edition does not tell.
        images: one file per name in `MODALITIES`, in that order.
        label: the file of the annotation; None only where it was not asked for.
    """

    name: str
    grade: str | None
    images: dict[str, Path]
    label: Path | None


@dataclass(frozen=True)
class _Layout:
    is_subject: Callable[[Path], bool]
    candidates: Callable[[Path], dict[str, list[Path]]]
    graded_names: bool
    tree: str


def find_subjects(root: Path, dataset: Dataset, *, require_labels: bool = True) -> list[Subject]:
    """Finds every subject of `dataset`, wherever its folder lies below `root`.

    Files and folders that belong to no subject are ignored, as are hidden ones.

    Args:
        root: folder that holds the released folders, at any depth; symbolic links are followed.
        dataset: edition whose layout is expected.
        require_labels: when false, a subject may lack its label.

    Returns:
        The subjects, sorted by name.

    Raises:
        LayoutError: `root` is missing, not a folder, empty or without subjects; or a subject lacks a file, has two
            for one purpose, or is there twice (one error lists all of them).
        ValueError: the layout of `dataset` is unknown.
    """
    layout = _layout_of(dataset)
    root = Path(root)
    _check_root(root, dataset)
    folders = sorted(_subject_folders(root, layout.is_subject))
    if not folders:
        raise LayoutError(f"{root}: found no subject of {dataset.title} in or below it.\n{describe_layout(dataset)}")
    subjects: dict[str, Subject] = {}
    places: dict[str, Path] = {}
    faults: list[str] = []
    for folder in folders:
        subject, subject_faults = _read_subject(folder, layout, require_labels)
        if subject.name in subjects:
            subject_faults = [f"{subject.name}: found twice, in {places[subject.name]} and in {folder}"]
        faults += subject_faults
        subjects.setdefault(subject.name, subject)
        places.setdefault(subject.name, folder)
    if faults:
        raise LayoutError(_list_faults(root, faults, dataset))
    return sorted(subjects.values(), key=lambda subject: subject.name)


def describe_layout(dataset: Dataset) -> str:
    """Shows the folders and files expected for one subject of `dataset`.

    Raises:
        ValueError: the layout of `dataset` is unknown.
    """
    return f"Expected layout of {dataset.title}, at any depth below the data root:\n{_layout_of(dataset).tree}"


def _layout_of(dataset: Dataset) -> _Layout:
    if dataset.name not in _LAYOUTS:
        raise ValueError(f"dataset: got {dataset.name!r}, need one of {', '.join(_LAYOUTS)}")
    return _LAYOUTS[dataset.name]


def _check_root(root: Path, dataset: Dataset) -> None:
    looked_for = f"looked for the subjects of {dataset.title}.\n{describe_layout(dataset)}"
    if not root.exists():
        raise LayoutError(f"{root}: no such folder; {looked_for}")
    if not root.is_dir():
        raise LayoutError(f"{root}: is a file and should be a folder; {looked_for}")
    if not any(root.iterdir()):
        raise LayoutError(f"{root}: the folder is empty; {looked_for}")


def _subject_folders(root: Path, is_subject: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields the folders that are subjects; follows links, but enters no folder twice, so that a loop of links ends."""
    # The grade is the name of the parent, so a relative root such as "." needs its real name.
    pending = [root.absolute()]
    entered = set()
    while pending:
        folder = pending.pop()
        if is_subject(folder):
            yield folder
            continue
        real = folder.resolve()
        if real not in entered:
            entered.add(real)
            pending += _visible(folder, folders=True)


def _visible(folder: Path, *, folders: bool) -> list[Path]:
    """Entries that are not hidden: macOS leaves a `._name` next to every file it copies."""
    with os.scandir(folder) as entries:
        found = [entry.name for entry in entries if entry.is_dir() == folders and not entry.name.startswith(".")]
    return [folder / name for name in sorted(found)]


def _read_subject(folder: Path, layout: _Layout, require_label: bool) -> tuple[Subject, list[str]]:
    grade = folder.parent.name if folder.parent.name in _GRADES else None
    name = f"{grade}_{folder.name}" if layout.graded_names else folder.name
    candidates = layout.candidates(folder)
    faults = []
    missing = [role for role in _ROLES if not candidates[role] and (role != _LABEL or require_label)]
    if missing:
        faults.append(f"{name}: lacks {', '.join(missing)} (in {folder})")
    for role, paths in candidates.items():
        if len(paths) > 1:
            shown = ", ".join(str(path.relative_to(folder)) for path in paths)
            faults.append(f"{name}: has {len(paths)} files for {role} and should have one: {shown} (in {folder})")
    images = {modality: candidates[modality][0] for modality in MODALITIES if candidates[modality]}
    label = candidates[_LABEL][0] if candidates[_LABEL] else None
    return Subject(name, grade, images, label), faults


def _list_faults(root: Path, faults: Sequence[str], dataset: Dataset) -> str:
    shown = list(faults[:_MAX_LISTED])
    if len(faults) > _MAX_LISTED:
        shown.append(f"... and {len(faults) - _MAX_LISTED} more")
    listed = "\n  ".join(shown)
    return f"{root}: the files of {dataset.title} are not complete:\n  {listed}\n{describe_layout(dataset)}"


def _candidates_in_folders(folder: Path) -> dict[str, list[Path]]:
    candidates: dict[str, list[Path]] = {role: [] for role in _ROLES}
    for part in _visible(folder, folders=True):
        for role, pattern in _FOLDER_PATTERNS.items():
            if pattern.fullmatch(part.name):
                candidates[role] += [path for path in _visible(part, folders=False) if path.suffix == ".mha"]
    return candidates


def _candidates_by_name(folder: Path) -> dict[str, list[Path]]:
    files = {path.name: path for path in _visible(folder, folders=False)}
    stems = {role: [f"{folder.name}_{suffix}"] for role, suffix in _FILE_SUFFIXES.items()}
    stems[_LABEL].append(_MISNAMED_LABEL)
    return {
        role: [files[stem + ending] for stem in stems[role] for ending in _NIFTI_ENDINGS if stem + ending in files]
        for role in _ROLES
    }


def _is_graded_folder(folder: Path) -> bool:
    return folder.parent.name in _GRADES and folder.name not in _GRADES


def _is_brats2018(folder: Path) -> bool:
    return folder.parent.name in _GRADES and folder.name.startswith("Brats18_")


def _is_brats2020(folder: Path) -> bool:
    return folder.name.startswith("BraTS20_Training_")


_LAYOUTS = {
    "brats2015": _Layout(
        _is_graded_folder,
        _candidates_in_folders,
        graded_names=True,
        tree="""\
HGG/  (or LGG/)
  <subject>/
    VSD.Brain.XX.O.MR_Flair.<id>/*.mha
    VSD.Brain.XX.O.MR_T1.<id>/*.mha
    VSD.Brain.XX.O.MR_T1c.<id>/*.mha
    VSD.Brain.XX.O.MR_T2.<id>/*.mha
    VSD.Brain*.OT.<id>/*.mha""",
    ),
    "brats2018": _Layout(
        _is_brats2018,
        _candidates_by_name,
        graded_names=False,
        tree="""\
HGG/  (or LGG/)
  Brats18_*/
    Brats18_*_flair.nii.gz  (or .nii, here and below)
    Brats18_*_t1.nii.gz
    Brats18_*_t1ce.nii.gz
    Brats18_*_t2.nii.gz
    Brats18_*_seg.nii.gz""",
    ),
    "brats2020": _Layout(
        _is_brats2020,
        _candidates_by_name,
        graded_names=False,
        tree="""\
BraTS20_Training_NNN/
  BraTS20_Training_NNN_flair.nii.gz  (or .nii, here and below)
  BraTS20_Training_NNN_t1.nii.gz
  BraTS20_Training_NNN_t1ce.nii.gz
  BraTS20_Training_NNN_t2.nii.gz
  BraTS20_Training_NNN_seg.nii.gz  (W39_1998.09.19_Segm.nii for subject 355 in a widespread copy)""",
    ),
}
