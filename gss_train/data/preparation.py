"""Prepares a data set: verifies the raw scans and leaves one file per subject that crops can be read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gss_train.common import Triple, UserError, remove_stale_partials, to_triple
from gss_train.data.datasets import Dataset, Subject
from gss_train.data.faults import Fault, bad_subjects, describe_faults
from gss_train.data.grids import Spacing
from gss_train.data.normalisation import normalise
from gss_train.data.pool import map_unordered
from gss_train.data.prepared import (
    PreparedError,
    PreparedSubject,
    Recipe,
    SourceFile,
    files_of,
    read_prepared,
    sidecar_of,
    write_prepared,
)
from gss_train.data.prepared_index import add_to_index
from gss_train.data.resampling import ResamplingError
from gss_train.data.verification import MEND_OR_RESPACE, check_subjects, read_and_check

_VERSION = 4


class PreparationError(UserError):
    """Raw files cannot be used or do not fit together; the message lists them, what is wrong and what to do.

    Attributes:
        faults: all of them, warnings too.
    """

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


@dataclass(frozen=True)
class Preparation:
    """A prepared data set.

    Attributes:
        subjects: those prepared, in the order of the raw ones.
        left_out: the errors of the subjects that were left out; empty unless that was asked for.
        warnings: what is suspicious in the others.
    """

    subjects: list[PreparedSubject]
    left_out: list[Fault]
    warnings: list[Fault]

    @property
    def names_left_out(self) -> list[str]:
        """The subjects left out, each once."""
        return bad_subjects(self.left_out)


@dataclass(frozen=True)
class _Outcome:
    """What is known of a subject: its prepared form, unless it has errors; its faults; fingerprints of its scans."""

    prepared: PreparedSubject | None
    faults: list[Fault]
    digests: dict[str, str]

    @classmethod
    def of(cls, subject: Subject, prepared: PreparedSubject) -> _Outcome:
        files = subject.files
        warnings = prepared.metadata.warnings
        faults = [Fault(subject.name, files[role], problem, remedy, "warning") for role, problem, remedy in warnings]
        return cls(prepared, faults, prepared.metadata.digests)


def prepare_dataset(
    subjects: Sequence[Subject],
    dataset: Dataset,
    folder: Path,
    grown_size: Triple,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    spacing: Spacing | None = None,
    *,
    skip_bad: bool = False,
    released_box: bool = False,
) -> Preparation:
    """Verifies and prepares all subjects, those that are up to date excepted.

    It may be killed at any moment: what is finished is kept, and the next call does the rest. `<name>.npy` gets the
    voxels and then `<name>.json` their description, both under a temporary name first: what a killed run leaves behind
    is never taken for complete. The folder's index names them all beforehand. `gss_train.data.normalisation` tells what
    is computed.

    Args:
        subjects: raw subjects, with different names, and a scan at least of each; without a label, all is background.
        dataset: their edition.
        folder: where the prepared files go; made when missing.
        grown_size: voxels per axis that the brain's box is grown to within the whole volume; 128 as published, and 1
            leaves it as it is. What is smaller than a crop is padded when the crop is read.
        workers: processes; 1 works in this process. Default: the processors at hand, at most 8.
        progress: called with the number of finished subjects and that of all subjects, at first with what was
            already there.
        spacing: voxel size in millimetres that scans and labels are brought to, wherever their affines place them;
            None: that which they have, and all files of a subject are on one grid.
        skip_bad: leave out subjects with errors rather than raise.
        released_box: see `gss_train.data.normalise_scans`.

    Raises:
        PreparationError: errors in the raw files, or none is left without; one lists all of them, after all other
            subjects are prepared.
        OSError: a prepared file cannot be written; the message names the folder.
        ValueError: two subjects of one name, or an impossible `grown_size` or `workers`.
    """
    if len({subject.name for subject in subjects}) != len(subjects):
        raise ValueError("subjects: got two of the same name, need different names")
    if len(grown_size) != 3 or min(grown_size) < 1:
        raise ValueError(f"grown_size: got {grown_size}, need three sizes of at least 1 voxel")
    recipe = Recipe(_VERSION, dataset.name, dataset.label_values, to_triple(grown_size), spacing, released_box)
    remove_stale_partials(folder)
    outcomes = {}
    for subject in subjects:
        prepared = _up_to_date(subject, recipe, folder)
        if prepared is not None:
            outcomes[subject.name] = _Outcome.of(subject, prepared)
    pending = [subject for subject in subjects if subject.name not in outcomes]
    files = [path for subject in pending for path in files_of(_path_of(subject, folder), recipe)]
    add_to_index(folder, [path.name for path in files], recipe)
    attempt = partial(_attempt, dataset=dataset, folder=folder, recipe=recipe)
    for subject, outcome in map_unordered(attempt, pending, workers, progress, len(outcomes)):
        outcomes[subject.name] = outcome
    return _conclude(subjects, outcomes, skip_bad=skip_bad)


def _path_of(subject: Subject, folder: Path) -> Path:
    return Path(folder) / f"{subject.name}.npy"


def _sources(subject: Subject) -> dict[str, SourceFile] | None:
    """Stamps of the raw files; None when one of them is not there."""
    try:
        stats = {role: (path, path.stat()) for role, path in subject.files.items()}
    except OSError:
        return None
    return {role: SourceFile(str(path), stat.st_size, stat.st_mtime_ns) for role, (path, stat) in stats.items()}


def _up_to_date(subject: Subject, recipe: Recipe, folder: Path) -> PreparedSubject | None:
    path = _path_of(subject, folder)
    if not sidecar_of(path).exists():
        return None
    try:
        prepared = read_prepared(path)
        prepared.open()
        if prepared.metadata.truth is not None:
            prepared.truth()
    except PreparedError:
        return None  # damaged: preparing it again is the cure
    sources = _sources(subject)
    # Raw files may move to another folder, but not change.
    known, now = (
        {role: (source.size, source.mtime_ns) for role, source in (stamps or {}).items()}
        for stamps in (prepared.metadata.sources, sources)
    )
    return prepared if known == now and prepared.metadata.recipe == recipe else None


def _attempt(subject: Subject, dataset: Dataset, folder: Path, recipe: Recipe) -> _Outcome:
    # Taken before the files are read: one that changes meanwhile is then prepared again.
    sources = _sources(subject)
    checked = read_and_check(subject, dataset, recipe.spacing)
    if bad_subjects(checked.faults):
        return _Outcome(None, checked.faults, checked.digests)
    if sources is None:
        late = Fault(subject.name, None, "a file was not there at first", "start again once all files are there")
        return _Outcome(None, [*checked.faults, late], checked.digests)
    try:
        voxels, metadata, truth = normalise(subject, checked, recipe, sources)
    except ResamplingError as error:
        fault = Fault(subject.name, None, str(error), MEND_OR_RESPACE)
        return _Outcome(None, [*checked.faults, fault], checked.digests)
    return _Outcome.of(subject, write_prepared(_path_of(subject, folder), voxels, metadata, truth))


def _conclude(subjects: Sequence[Subject], outcomes: Mapping[str, _Outcome], *, skip_bad: bool) -> Preparation:
    faults = check_subjects(subjects, {name: outcome.digests for name, outcome in outcomes.items()})
    faults += [fault for subject in subjects for fault in outcomes[subject.name].faults]
    bad = bad_subjects(faults)
    sound = [outcomes[subject.name].prepared for subject in subjects if subject.name not in bad]
    prepared = [subject for subject in sound if subject is not None]
    if bad and not (skip_bad and prepared):
        message = f"{len(bad)} of {len(subjects)} subjects cannot be used:\n{describe_faults(faults)}"
        raise PreparationError(message, faults)
    errors = [fault for fault in faults if fault.severity == "error"]
    return Preparation(prepared, errors, [fault for fault in faults if fault.severity == "warning"])
