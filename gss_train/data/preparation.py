"""Prepares a data set: verifies the raw scans and leaves one file per subject that crops can be read from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gss_train.common import Triple, UserError, remove_stale_partials, to_triple
from gss_train.data.normalisation import normalise
from gss_train.data.pool import map_unordered
from gss_train.data.prepared import (
    PreparationSettings,
    PreparedError,
    PreparedSubject,
    SourceFile,
    read_prepared,
    sidecar_of,
    write_prepared,
)
from gss_train.data.verification import Fault, check_subjects, describe_faults, raw_files, read_and_check

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gss_train.data.conventions import Dataset
    from gss_train.data.layouts import Subject

_VERSION = 2


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
        return list(dict.fromkeys(fault.subject for fault in self.left_out))


@dataclass(frozen=True)
class _Rejected:
    """What is known of a subject that cannot be prepared."""

    faults: list[Fault]
    digests: dict[str, str]


def prepare_dataset(
    subjects: Sequence[Subject],
    dataset: Dataset,
    folder: Path,
    minimum_size: Triple,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    grown_size: Triple | None = None,
    *,
    skip_bad: bool = False,
) -> Preparation:
    """Verifies and prepares all subjects, those that are up to date excepted.

    It may be killed at any moment: what is finished is kept, and the next call does the rest.

    Args:
        subjects: raw subjects, with different names.
        dataset: their edition.
        folder: where the prepared files go; made when missing.
        minimum_size: voxels per axis that every prepared volume has at least.
        workers: processes; 1 works in this process. Default: the processors at hand, at most 8.
        progress: called with the number of finished subjects and that of all subjects, at first with what was
            already there.
        grown_size: see `prepare_subject`.
        skip_bad: leave out subjects with errors rather than raise.

    Raises:
        PreparationError: errors in the raw files, or none is left without; one lists all of them, after all other
            subjects are prepared.
        OSError: a prepared file cannot be written; the message names the folder.
        ValueError: two subjects of one name, or an impossible `minimum_size` or `workers`.
    """
    if len({subject.name for subject in subjects}) != len(subjects):
        raise ValueError("subjects: got two of the same name, need different names")
    settings = _settings(dataset, minimum_size, grown_size)
    remove_stale_partials(folder)
    results: dict[str, PreparedSubject | _Rejected | None] = {
        s.name: _up_to_date(s, settings, folder) for s in subjects
    }
    pending = [subject for subject in subjects if results[subject.name] is None]
    finished = len(subjects) - len(pending)
    report = progress or (lambda _finished, _total: None)
    attempts = map_unordered(partial(_attempt, dataset=dataset, folder=folder, settings=settings), pending, workers)
    report(finished, len(subjects))
    for subject, result in attempts:
        results[subject.name] = result
        finished += 1
        report(finished, len(subjects))
    return _conclude(subjects, {name: r for name, r in results.items() if r is not None}, skip_bad=skip_bad)


def prepare_subject(
    subject: Subject, dataset: Dataset, folder: Path, minimum_size: Triple, grown_size: Triple | None = None
) -> PreparedSubject:
    """Verifies and prepares one subject, or finds that it is up to date.

    `<name>.npy` gets the voxels and then `<name>.json` its description, both under a temporary name first: what a
    killed run leaves behind is never taken for complete. `gss_train.data.normalisation` tells what is computed.

    Args:
        subject: raw files, a scan at least; without a label, every voxel is background.
        dataset: its edition.
        folder: where the prepared files go; made when missing.
        minimum_size: voxels per axis that the prepared volume has at least.
        grown_size: voxels per axis that the box is grown to within the raw volume; 128 as published. Default:
            `minimum_size`.

    Raises:
        PreparationError: errors in the raw files.
        OSError: a prepared file cannot be written; the message names the folder.
        ValueError: an impossible `minimum_size`.
    """
    settings = _settings(dataset, minimum_size, grown_size)
    result = _up_to_date(subject, settings, folder) or _attempt(subject, dataset, folder, settings)
    if isinstance(result, _Rejected):
        raise _error(result.faults, 1)
    return result


def _settings(dataset: Dataset, minimum_size: Triple, grown_size: Triple | None) -> PreparationSettings:
    grown_size = minimum_size if grown_size is None else grown_size
    for name, size in (("minimum_size", minimum_size), ("grown_size", grown_size)):
        if len(size) != 3 or min(size) < 1:
            raise ValueError(f"{name}: got {size}, need three sizes of at least 1 voxel")
    grown_size = to_triple([max(sizes) for sizes in zip(minimum_size, grown_size, strict=True)])
    return PreparationSettings(_VERSION, dataset.name, dataset.label_values, to_triple(minimum_size), grown_size)


def _path_of(subject: Subject, folder: Path) -> Path:
    return Path(folder) / f"{subject.name}.npy"


def _sources(subject: Subject) -> dict[str, SourceFile] | None:
    """Stamps of the raw files; None when one of them is not there."""
    try:
        stats = {role: (path, path.stat()) for role, path in raw_files(subject).items()}
    except OSError:
        return None
    return {role: SourceFile(str(path), stat.st_size, stat.st_mtime_ns) for role, (path, stat) in stats.items()}


def _up_to_date(subject: Subject, settings: PreparationSettings, folder: Path) -> PreparedSubject | None:
    path = _path_of(subject, folder)
    if not sidecar_of(path).exists():
        return None
    try:
        prepared = read_prepared(path)
        prepared.open()
    except PreparedError:
        return None  # damaged: preparing it again is the cure
    sources = _sources(subject)
    if sources is None:
        return None
    # Raw files may move to another folder, but not change.
    known = {role: (source.size, source.mtime_ns) for role, source in prepared.metadata.sources.items()}
    now = {role: (source.size, source.mtime_ns) for role, source in sources.items()}
    return prepared if known == now and prepared.metadata.settings == settings else None


def _attempt(
    subject: Subject, dataset: Dataset, folder: Path, settings: PreparationSettings
) -> PreparedSubject | _Rejected:
    # Taken before the files are read: one that changes meanwhile is then prepared again.
    sources = _sources(subject)
    checked = read_and_check(subject, dataset)
    if sources is None or any(fault.severity == "error" for fault in checked.faults):
        return _Rejected(checked.faults, checked.digests)
    voxels, metadata = normalise(subject, checked, settings, sources)
    return write_prepared(_path_of(subject, folder), voxels, metadata)


def _conclude(
    subjects: Sequence[Subject], results: dict[str, PreparedSubject | _Rejected], *, skip_bad: bool
) -> Preparation:
    faults = check_subjects(subjects, {name: _digests(result) for name, result in results.items()})
    for subject in subjects:
        faults += _faults(subject, results[subject.name])
    errors = [fault for fault in faults if fault.severity == "error"]
    bad = {fault.subject for fault in errors}
    prepared = [result for name, result in results.items() if isinstance(result, PreparedSubject) and name not in bad]
    if errors and not (skip_bad and prepared):
        raise _error(faults, len(subjects))
    return Preparation(prepared, errors, [fault for fault in faults if fault.severity == "warning"])


def _digests(result: PreparedSubject | _Rejected) -> dict[str, str]:
    return result.metadata.digests if isinstance(result, PreparedSubject) else result.digests


def _faults(subject: Subject, result: PreparedSubject | _Rejected) -> list[Fault]:
    if isinstance(result, _Rejected):
        return result.faults
    files = raw_files(subject)
    warnings = result.metadata.warnings
    return [Fault(subject.name, files[role], problem, remedy, "warning") for role, problem, remedy in warnings]


def _error(faults: Sequence[Fault], total: int) -> PreparationError:
    bad = len({fault.subject for fault in faults if fault.severity == "error"})
    return PreparationError(f"{bad} of {total} subjects cannot be used:\n{describe_faults(faults)}", faults)
