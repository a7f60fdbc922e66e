"""How each BraTS edition names the folders and files of a subject."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gss_train.data.conventions import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LABEL = "label"
ROLES = (*MODALITIES, LABEL)
GRADES = ("HGG", "LGG")
VOLUME_ENDINGS = (".nii.gz", ".nii", ".mha")


@dataclass(frozen=True)
class Layout:
    """Folders and files of one edition.

    Attributes:
        is_subject: whether a folder, of which the names of its visible entries are given too, is a subject's.
        find_files: below a subject's folder, the files for each of `ROLES`.
        graded_names: whether a subject's name needs the grade before it to be unique.
        patient: of a subject's name, in its first group what all time points of a patient share; None where every
            subject is another patient.
        example: the path of one file, for messages.
        tree: the folders and files of a subject, for messages.
    """

    is_subject: Callable[[Path, Sequence[str]], bool]
    find_files: Callable[[Path], dict[str, list[Path]]]
    graded_names: bool
    patient: re.Pattern[str] | None
    example: str
    tree: str


def visible(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files in `folder`, by name; not the hidden ones: macOS leaves a `._name` next to what it copies."""
    folders: list[Path] = []
    files: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if entry.is_dir() else files).append(folder / entry.name)
    return sorted(folders), sorted(files)


def _volumes_at(path: Path) -> list[Path]:
    """The file itself or, where an archive was unpacked into a folder of its own name, the volumes in that folder."""
    if path.is_dir():
        return [file for file in visible(path)[1] if file.name.endswith(VOLUME_ENDINGS)]
    return [path] if path.is_file() and path.name.endswith(VOLUME_ENDINGS) else []


# BraTS2015 numbers its files, so that only a part of a name tells what it is.
_VSD_PATTERNS = {
    "FLAIR": re.compile(r"VSD\.Brain.*\.MR_Flair\..+"),
    "T1ce": re.compile(r"VSD\.Brain.*\.MR_T1c\..+"),
    "T1": re.compile(r"VSD\.Brain.*\.MR_T1\..+"),
    "T2": re.compile(r"VSD\.Brain.*\.MR_T2\..+"),
    LABEL: re.compile(r"VSD\.Brain.*\.OT\..+"),
}


def _has_vsd_entries(_folder: Path, entries: Sequence[str]) -> bool:
    return any(pattern.fullmatch(name) for name in entries for pattern in _VSD_PATTERNS.values())


def _find_vsd_files(folder: Path) -> dict[str, list[Path]]:
    folders, files = visible(folder)
    return {
        role: [file for entry in (*folders, *files) if pattern.fullmatch(entry.name) for file in _volumes_at(entry)]
        for role, pattern in _VSD_PATTERNS.items()
    }


_BRATS2015 = Layout(
    _has_vsd_entries,
    _find_vsd_files,
    graded_names=True,
    patient=re.compile(r"(.*pat\d+)_\d+"),
    example="HGG/<subject>/VSD.Brain.XX.O.MR_Flair.<id>/*.mha",
    tree="""\
HGG/  (or LGG/)
  <subject>/
    VSD.Brain.XX.O.MR_Flair.<id>/*.mha  (or .nii, .nii.gz, here and below)
    VSD.Brain.XX.O.MR_T1.<id>/*.mha
    VSD.Brain.XX.O.MR_T1c.<id>/*.mha
    VSD.Brain.XX.O.MR_T2.<id>/*.mha
    VSD.Brain*.OT.<id>/*.mha""",
)

_SUFFIXES = {"FLAIR": "_flair", "T1ce": "_t1ce", "T1": "_t1", "T2": "_t2", LABEL: "_seg"}
_SUFFIXES_OF_2023 = {"FLAIR": "-t2f", "T1ce": "-t1c", "T1": "-t1n", "T2": "-t2w", LABEL: "-seg"}
# The label of BraTS20_Training_355 in the widespread Kaggle copy.
_MISNAMED_LABEL = "W39_1998.09.19_Segm"


def _is_named(pattern: re.Pattern[str], folder: Path, _entries: Sequence[str]) -> bool:
    return pattern.fullmatch(folder.name) is not None


def _find_named_files(suffixes: Mapping[str, str], misnamed_label: str | None, folder: Path) -> dict[str, list[Path]]:
    stems = {role: [folder.name + suffix] for role, suffix in suffixes.items()}
    if misnamed_label is not None:
        stems[LABEL].append(misnamed_label)
    return {
        role: [file for stem in stems[role] for end in VOLUME_ENDINGS for file in _volumes_at(folder / (stem + end))]
        for role in ROLES
    }


def _named_layout(
    pattern: str,
    shown: str,
    suffixes: Mapping[str, str] = _SUFFIXES,
    *,
    graded: bool = False,
    misnamed_label: str | None = None,
    patient: str | None = None,
) -> Layout:
    """An edition whose files are the subject's folder name and a suffix; `shown` is that name in messages."""
    files = [f"  {shown}{suffixes[role]}.nii.gz" for role in ROLES]
    files[0] += "  (or .nii, .mha, here and below)"
    if misnamed_label is not None:
        files[-1] += f"  ({misnamed_label}.nii for subject 355 in a widespread copy)"
    lines = [f"{shown}/", *files]
    if graded:
        lines = ["HGG/  (or LGG/, or neither)", *(f"  {line}" for line in lines)]
    return Layout(
        partial(_is_named, re.compile(pattern)),
        partial(_find_named_files, suffixes, misnamed_label),
        graded_names=False,
        patient=None if patient is None else re.compile(patient),
        example=f"{'HGG/' if graded else ''}{shown}/{shown}{suffixes['FLAIR']}.nii.gz",
        tree="\n".join(lines),
    )


# Names end in a number: folders such as Brats18_Training hold subjects and are none.
LAYOUTS: dict[str, Layout] = {
    "brats2015": _BRATS2015,
    "brats2018": _named_layout(r"Brats18_\w+_\d+", "Brats18_*", graded=True),
    "brats2019": _named_layout(r"BraTS19_\w+_\d+", "BraTS19_*", graded=True),
    "brats2020": _named_layout(
        r"BraTS20_(Training|Validation)_\d+", "BraTS20_Training_NNN", misnamed_label=_MISNAMED_LABEL
    ),
    "brats2021": _named_layout(r"BraTS2021_\d+", "BraTS2021_NNNNN"),
    "brats2023": _named_layout(
        r"BraTS-GLI-\d+-\d+", "BraTS-GLI-NNNNN-NNN", _SUFFIXES_OF_2023, patient=r"(BraTS-GLI-\d+)-\d+"
    ),
}
