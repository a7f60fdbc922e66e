"""Finds the subjects of a BraTS edition by the folders and file names that it was released with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gss_train.common import UserError
from gss_train.data.datasets import DATASETS, LABEL, MODALITIES, VOLUME_ENDINGS, Dataset, Subject

_GRADES = ("HGG", "LGG")
_FOLDER = "<folder>"
_MAX_LISTED = 20


class LayoutError(UserError):
    """The data root does not hold the expected subjects; the message shows the expected layout."""


@dataclass(frozen=True)
class Layout:
    """Folders and files of one edition.

    Attributes:
        folder: pattern of the name of a subject's folder; None: any folder that has one of `files` is a subject's.
        files: for each modality and `LABEL`, pattern of the name of its file, or of the folder that an archive of the
            file was unpacked into; `<folder>` in it stands for the name of the subject's folder.
        example: the path of one file, for messages.
        tree: the folders and files of a subject, for messages.
        patient: pattern of a subject's name, in its first group what all time points of a patient share; None: every
            subject is another patient.
        graded_names: whether a subject's name needs the grade before it to be unique.
    """

    folder: str | None
    files: Mapping[str, str]
    example: str
    tree: str
    patient: str | None = None
    graded_names: bool = False

    def is_subject(self, folder: Path, entries: Sequence[Path]) -> bool:
        """Whether a folder with these entries is a subject's."""
        if self.folder is not None:
            return re.fullmatch(self.folder, folder.name) is not None
        return any(re.fullmatch(pattern, entry.name) for entry in entries for pattern in self.files.values())

    def find_files(self, folder: Path) -> dict[str, list[Path]]:
        """The files in a subject's folder, by modality and `LABEL`; there should be no more than one of each."""
        entries = _visible(folder)
        patterns = {role: pattern.replace(_FOLDER, re.escape(folder.name)) for role, pattern in self.files.items()}
        return {
            role: [file for entry in entries if re.fullmatch(pattern, entry.name) for file in _volumes_at(entry)]
            for role, pattern in patterns.items()
        }


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, by name; nothing hidden: macOS leaves a `._name` next to what it copies."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _volumes_at(path: Path) -> list[Path]:
    """The file itself or, where an archive was unpacked into a folder of its own name, the volumes in that folder."""
    files = _visible(path) if path.is_dir() else [path]
    return [file for file in files if file.name.endswith(VOLUME_ENDINGS) and file.is_file()]


def _named_layout(
    folder: str,
    shown: str,
    *,
    graded: bool = False,
    suffixes: Sequence[str] = ("_flair", "_t1ce", "_t1", "_t2", "_seg"),
    misnamed_label: str | None = None,
    patient: str | None = None,
) -> Layout:
    """An edition whose files are called after the subject's folder; `shown` is its name in messages."""
    ending = rf"({'|'.join(map(re.escape, VOLUME_ENDINGS))})"
    files = {role: _FOLDER + suffix + ending for role, suffix in zip((*MODALITIES, LABEL), suffixes, strict=True)}
    lines = [f"{shown}{suffix}.nii.gz" for suffix in suffixes]
    example = f"{'HGG/' if graded else ''}{shown}/{lines[0]}"
    lines[0] += "  (or .nii, .mha, here and below)"
    if misnamed_label is not None:
        files[LABEL] = f"({files[LABEL]}|{re.escape(misnamed_label)}{ending})"
        lines[-1] += f"  ({misnamed_label}.nii for subject 355 in a widespread copy)"
    lines = [f"{shown}/", *(f"  {line}" for line in lines)]
    if graded:
        lines = ["HGG/  (or LGG/, or neither)", *(f"  {line}" for line in lines)]
    return Layout(folder, files, example, "\n".join(lines), patient)


LAYOUTS = {
    "brats2015": Layout(
        folder=None,
        # Files are numbered, so that only a part of a name tells what it is.
        files={
            "FLAIR": r"VSD\.Brain.*\.MR_Flair\..+",
            "T1ce": r"VSD\.Brain.*\.MR_T1c\..+",
            "T1": r"VSD\.Brain.*\.MR_T1\..+",
            "T2": r"VSD\.Brain.*\.MR_T2\..+",
            LABEL: r"VSD\.Brain.*\.OT\..+",
        },
        example="HGG/<subject>/VSD.Brain.XX.O.MR_Flair.<id>/*.mha",
        tree="""\
HGG/  (or LGG/)
  <subject>/
    VSD.Brain.XX.O.MR_Flair.<id>/*.mha  (or .nii, .nii.gz, here and below)
    VSD.Brain.XX.O.MR_T1.<id>/*.mha
    VSD.Brain.XX.O.MR_T1c.<id>/*.mha
    VSD.Brain.XX.O.MR_T2.<id>/*.mha
    VSD.Brain*.OT.<id>/*.mha""",
        # The name begins with the grade: there are other patients of the same number in the other grade.
        patient=r"(.*pat\d+)_\d+",
        graded_names=True,
    ),
    # Names end in a number: a folder such as Brats18_Training holds subjects and is none.
    "brats2018": _named_layout(r"Brats18_\w+_\d+", "Brats18_*", graded=True),
    "brats2019": _named_layout(r"BraTS19_\w+_\d+", "BraTS19_*", graded=True),
    "brats2020": _named_layout(
        r"BraTS20_(Training|Validation)_\d+",
        "BraTS20_Training_NNN",
        # The label of BraTS20_Training_355 in the widespread Kaggle copy.
        misnamed_label="W39_1998.09.19_Segm",
    ),
    "brats2021": _named_layout(r"BraTS2021_\d+", "BraTS2021_NNNNN"),
    "brats2023": _named_layout(
        r"BraTS-GLI-\d+-\d+",
        "BraTS-GLI-NNNNN-NNN",
        suffixes=("-t2f", "-t1c", "-t1n", "-t2w", "-seg"),
        patient=r"(BraTS-GLI-\d+)-\d+",
    ),
}


def find_subjects(root: Path, dataset: Dataset, *, require_labels: bool = True) -> list[Subject]:
    """Finds every subject of `dataset`, wherever its folder lies below `root`.

    Files and folders that belong to no subject are ignored, as are hidden ones. A subject may lack scans, but not all.

    Args:
        root: folder that holds the released folders, at any depth; symbolic links are followed.
        dataset: edition whose layout is expected.
        require_labels: when true, a subject that lacks its label is a fault, and BraTS2020's validation subjects,
            which were released without, are ignored.

    Returns:
        The subjects, sorted by name.

    Raises:
        LayoutError: `root` is missing, not a folder, empty or without subjects; or a subject lacks all scans or its
            label, has two files for one purpose, or is there twice (one error lists all of them).
    """
    layout = LAYOUTS[dataset.name]
    root = Path(root)
    _check_root(root, f"looked for the subjects of {dataset.title}.\n{describe_layout(dataset)}")
    by_edition = _subject_folders(root)
    folders = [f for f in by_edition.get(dataset.name, []) if not (require_labels and "_Validation_" in f.name)]
    if not folders:
        seen = f", but {_counts(by_edition)}" if by_edition else ""
        kind = "labelled subject" if dataset.name in by_edition else "subject"
        raise LayoutError(
            f"{root}: found no {kind} of {dataset.title} in or below it{seen}.\n{describe_layout(dataset)}"
        )
    found: dict[str, tuple[Path, Subject]] = {}
    faults: list[str] = []
    for folder in sorted(folders):
        subject, subject_faults = _read_subject(folder, layout, require_labels)
        first, _ = found.setdefault(subject.name, (folder, subject))
        faults += subject_faults if first == folder else [f"{subject.name}: found twice, in {first} and in {folder}"]
    if faults:
        listed = "\n  ".join(_shortened(faults))
        raise LayoutError(
            f"{root}: the files of {dataset.title} cannot be used as they are:\n  {listed}\n{describe_layout(dataset)}"
        )
    return [subject for _, (_, subject) in sorted(found.items())]


def recognise_dataset(root: Path) -> tuple[Dataset, int]:
    """Tells which edition lies in or below `root`, by the names of folders and files.

    Args:
        root: as for `find_subjects`.

    Returns:
        The edition and the number of its subjects' folders, of those without label too.

    Raises:
        LayoutError: `root` is missing, not a folder or empty, or holds subjects of no edition or of several; the
            message lists what was seen.
    """
    root = Path(root)
    examples = "\n".join(f"  {dataset.title}: {LAYOUTS[name].example}" for name, dataset in DATASETS.items())
    expected = (
        f"Expected subjects of one BraTS edition, at any depth below the data root, with files such as\n{examples}"
    )
    _check_root(root, f"looked for subjects of any BraTS edition.\n{expected}")
    by_edition = _subject_folders(root)
    if not by_edition:
        names = [f"{path.name}/" if path.is_dir() else path.name for path in sorted(_visible(root), key=Path.is_file)]
        seen = ", ".join(_shortened(names or ["only hidden files"]))
        raise LayoutError(f"{root}: recognised no BraTS edition in or below it; it holds {seen}.\n{expected}")
    if len(by_edition) > 1:
        raise LayoutError(f"{root}: holds more than one BraTS edition: {_counts(by_edition)}; pick one with --dataset")
    ((name, folders),) = by_edition.items()
    return DATASETS[name], len(folders)


def describe_layout(dataset: Dataset) -> str:
    """Shows the folders and files expected for one subject of `dataset`."""
    return f"Expected layout of {dataset.title}, at any depth below the data root:\n{LAYOUTS[dataset.name].tree}"


def _check_root(root: Path, looked_for: str) -> None:
    if not root.exists():
        raise LayoutError(f"{root}: no such folder; {looked_for}")
    if not root.is_dir():
        raise LayoutError(f"{root}: is a file and should be a folder; {looked_for}")
    if not any(root.iterdir()):
        raise LayoutError(f"{root}: the folder is empty; {looked_for}")


def _subject_folders(root: Path) -> dict[str, list[Path]]:
    """Subjects' folders by edition; follows links, but enters no folder twice, so that a loop of links ends."""
    # The grade is the name of the parent, so a relative root such as "." needs its real name.
    pending = [root.absolute()]
    entered = set()
    found: dict[str, list[Path]] = {}
    while pending:
        folder = pending.pop()
        entries = _visible(folder)
        edition = next((name for name, layout in LAYOUTS.items() if layout.is_subject(folder, entries)), None)
        if edition is not None:
            found.setdefault(edition, []).append(folder)
        elif (real := folder.resolve()) not in entered:
            entered.add(real)
            pending += [entry for entry in entries if entry.is_dir()]
    return found


def _counts(by_edition: Mapping[str, Sequence[Path]]) -> str:
    counts = [(DATASETS[name].title, len(by_edition[name])) for name in DATASETS if name in by_edition]
    return ", ".join(f"{count} subject{'s' * (count != 1)} of {title}" for title, count in counts)


def _read_subject(folder: Path, layout: Layout, require_label: bool) -> tuple[Subject, list[str]]:
    grade = folder.parent.name if folder.parent.name in _GRADES else None
    name = f"{grade}_{folder.name}" if layout.graded_names and grade else folder.name
    files = layout.find_files(folder)
    images = {modality: files[modality][0] for modality in MODALITIES if files[modality]}
    label = files[LABEL][0] if files[LABEL] else None
    faults = []
    if not images:
        faults.append(f"{name}: has no scan, should have at least one of {', '.join(MODALITIES)} (in {folder})")
    if label is None and require_label:
        faults.append(f"{name}: lacks {LABEL} (in {folder})")
    for role, paths in files.items():
        if len(paths) > 1:
            shown = ", ".join(str(path.relative_to(folder)) for path in paths)
            faults.append(f"{name}: has {len(paths)} files for {role} and should have one: {shown} (in {folder})")
    time_point = re.fullmatch(layout.patient, name) if layout.patient is not None else None
    return Subject(name, grade, images, label, time_point[1] if time_point else None), faults


def _shortened(items: Sequence[str]) -> list[str]:
    more = len(items) - _MAX_LISTED
    return [*items[:_MAX_LISTED], f"... and {more} more"] if more > 0 else list(items)
