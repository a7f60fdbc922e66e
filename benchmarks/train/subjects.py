"""Prepared subjects of a folder, divided into those to train on and those held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gss_train.common import UserError
from gss_train.data import DATASETS, Dataset, PreparedSubject, Subject, load_prepared, split_subjects

_SPLIT_SEED = 0


@dataclass(frozen=True)
class Subjects:
    """What is trained on, and what is scored.

    Attributes:
        training: subjects.
        held_out: others.
        dataset: of all of them.
    """

    training: tuple[PreparedSubject, ...]
    held_out: tuple[PreparedSubject, ...]
    dataset: Dataset


def read_subjects(folder: Path) -> Subjects:
    """Divide those with a label; all but those for training are held out.

    Raises:
        UserError: there are too few, or they are of several data sets or of one that needs a file to be understood.
    """
    subjects = {subject.name: subject for subject in load_prepared(folder) if subject.has_label}
    datasets = {subject.metadata.recipe.dataset for subject in subjects.values()}
    if len(datasets) != 1 or not datasets <= DATASETS.keys():
        found = ", ".join(sorted(datasets)) or "none with a label"
        raise UserError(f"{folder}: holds subjects of {found}, should hold those of one of {', '.join(DATASETS)}")
    dataset = DATASETS[datasets.pop()]
    graded = [Subject(name, subject.metadata.grade, {}, None) for name, subject in subjects.items()]
    try:
        split = split_subjects(graded, dataset.published_split, _SPLIT_SEED)
    except ValueError as error:
        raise UserError(f"{folder}: holds too few subjects: {error}") from error
    training, held_out = split.train, (*split.test, *split.validation)
    return Subjects(tuple(subjects[name] for name in training), tuple(subjects[name] for name in held_out), dataset)
