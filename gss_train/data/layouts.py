"""Finds the subjects of a BraTS edition in the folders and file names it was released with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gss_train.common import UserError
from gss_train.data.conventions import DATASETS, MODALITIES, Dataset
from gss_train.data.editions import GRADES, LABEL, LAYOUTS, Layout, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_LISTED = 20


class LayoutError(UserError):
    """The data root does not hold the expected subjects; the message shows the expected layout."""


@dataclass(frozen=True)
class Subject:
    """The raw files of one subject.

    Attributes:
        name: unique within the data set. The folder's name; for BraTS2015, whose folder names occur in both grades,
            the grade and the folder's name, such as `HGG_brats_2013_pat0001_1`.
        grade: "HGG", "LGG", or None where the edition does not tell.
        images: one to four files, by names in `MODALITIES` and in that order; a scan that is missing is left out.
        label: the file of the annotation, or None where there is none.
        patient: what the time points of one patient share, in BraTS2015 and 2023; None: no other subject is of this
            patient.
    """

    name: str
    grade: str | None
    images: dict[str, Path]
    label: Path | None
    patient: str | None = None


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
        ValueError: the layout of `dataset` is unknown.
    """
    layout = _layout_of(dataset)
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
    subjects: dict[str, Subject] = {}
    places: dict[str, Path] = {}
    faults: list[str] = []
    for folder in sorted(folders):
        subject, subject_faults = _read_subject(folder, layout, require_labels)
        if subject.name in subjects:
            subject_faults = [f"{subject.name}: found twice, in {places[subject.name]} and in {folder}"]
        faults += subject_faults
        subjects.setdefault(subject.name, subject)
        places.setdefault(subject.name, folder)
    if faults:
        raise LayoutError(_list_faults(root, faults, dataset))
    return sorted(subjects.values(), key=lambda subject: subject.name)


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
        folders, files = visible(root)
        names = [*(f"{folder.name}/" for folder in folders), *(file.name for file in files)]
        seen = _shortened(names or ["only hidden files"])
        raise LayoutError(
            f"{root}: recognised no BraTS edition in or below it; it holds {', '.join(seen)}.\n{expected}"
        )
    if len(by_edition) > 1:
        raise LayoutError(f"{root}: holds more than one BraTS edition: {_counts(by_edition)}; pick one with --dataset")
    ((name, folders),) = by_edition.items()
    return DATASETS[name], len(folders)


def describe_layout(dataset: Dataset) -> str:
    """Shows the folders and files expected for one subject of `dataset`.

    Raises:
        ValueError: the layout of `dataset` is unknown.
    """
    return f"Expected layout of {dataset.title}, at any depth below the data root:\n{_layout_of(dataset).tree}"


def _layout_of(dataset: Dataset) -> Layout:
    if dataset.name not in LAYOUTS:
        raise ValueError(f"dataset: got {dataset.name!r}, need one of {', '.join(LAYOUTS)}")
    return LAYOUTS[dataset.name]


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
        folders, files = visible(folder)
        entries = [path.name for path in (*folders, *files)]
        edition = next((name for name, layout in LAYOUTS.items() if layout.is_subject(folder, entries)), None)
        if edition is not None:
            found.setdefault(edition, []).append(folder)
            continue
        real = folder.resolve()
        if real not in entered:
            entered.add(real)
            pending += folders
    return found


def _counts(by_edition: dict[str, list[Path]]) -> str:
    counts = [(DATASETS[name].title, len(by_edition[name])) for name in DATASETS if name in by_edition]
    return ", ".join(f"{count} subject{'s' * (count != 1)} of {title}" for title, count in counts)


def _read_subject(folder: Path, layout: Layout, require_label: bool) -> tuple[Subject, list[str]]:
    grade = folder.parent.name if folder.parent.name in GRADES else None
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
    # Of the name with the grade: BraTS2015 has other patients of one name in the other grade.
    time_point = layout.patient.fullmatch(name) if layout.patient is not None else None
    return Subject(name, grade, images, label, time_point[1] if time_point is not None else None), faults


def _shortened(items: Sequence[str]) -> list[str]:
    more = len(items) - _MAX_LISTED
    return [*items[:_MAX_LISTED], f"... and {more} more"] if more > 0 else list(items)


def _list_faults(root: Path, faults: Sequence[str], dataset: Dataset) -> str:
    listed = "\n  ".join(_shortened(faults))
    return f"{root}: the files of {dataset.title} cannot be used as they are:\n  {listed}\n{describe_layout(dataset)}"
