"""Verifies and prepares raw subjects, and says what is wrong with them."""

from __future__ import annotations

import dataclasses

from gss_train.common import UserError, show_progress
from gss_train.config import DataOptions
from gss_train.data import (
    Fault,
    Preparation,
    SplitError,
    bad_subjects,
    check_dataset,
    describe_faults,
    prepare_dataset,
    published_splits,
)
from gss_train.subjects.raw import RawData
from gss_train.subjects.source import Source, find_listed


def verify_subjects(raw: RawData, options: DataOptions, workers: int | None = None) -> bool:
    """Look for faults in all files of all subjects and in a list of them, and list what is found; nothing is written.

    Args:
        raw: the subjects.
        options: that may name a list of subjects, a published one or a file.
        workers: processes; by default one for each processor, at most 8.

    Returns:
        Whether there are no errors.
    """
    with show_progress("verifying") as meter:
        faults = check_dataset(raw.subjects, raw.dataset, workers, meter, raw.spacing)
    bad, doubtful = len(bad_subjects(faults)), len(bad_subjects(faults, "warning"))
    faults += _split_faults(raw, options)
    if faults:
        print(describe_faults(faults))
    count = len(raw.subjects)
    print(f"Verified {count} subject{'s' * (count != 1)}: {bad} with errors, {doubtful} with warnings")
    return not bad_subjects(faults)


def _split_faults(raw: RawData, options: DataOptions) -> list[Fault]:
    try:
        find_listed(raw, options)
    except SplitError as error:
        path = options.split_file
        if path is None:
            path = published_splits(raw.dataset.name)[options.split].path
            return [Fault("(split)", path, str(error), "add the subjects that are missing, or take --split seeded")]
        title, *lines = str(error).splitlines()
        problem = f"{title.removeprefix(f'{path}: ')} {'; '.join(line.strip() for line in lines)}"
        return [Fault("(split)", path, problem, "mend these lines of the split file")]
    return []


def prepare_subjects(raw: RawData, *, skip_bad: bool, workers: int | None = None) -> Preparation:
    """Verify and prepare subjects, and list their faults; what was prepared before is used again.

    Args:
        raw: the subjects.
        skip_bad: leave out those with errors.
        workers: processes; by default one for each processor, at most 8.

    Raises:
        UserError: there are errors in the raw scans, or in all of them.
        OSError: a prepared file cannot be written.
    """
    with show_progress("preparing") as meter:
        preparation = prepare_dataset(
            raw.subjects,
            raw.dataset,
            raw.prepared_folder,
            raw.grown_size,
            workers,
            meter,
            raw.spacing,
            skip_bad=skip_bad,
            released_box=raw.released_box,
        )
    listed = [*preparation.left_out, *preparation.warnings]
    if listed:
        print(describe_faults(listed), flush=True)
    return preparation


def prepare_source(source: Source, *, skip_bad: bool) -> tuple[Source, Preparation]:
    """Verify and prepare the subjects that a run needs.

    Returns:
        The source without the subjects that were left out, and what was prepared.

    Raises:
        UserError: the raw scans cannot be used, or too few of them.
        OSError: a prepared file cannot be written.
    """
    used = source.used
    preparation = prepare_subjects(used, skip_bad=skip_bad)
    bad = preparation.names_left_out
    if not bad:
        return source, preparation
    print(f"--skip-bad: {len(bad)} of {len(used.subjects)} subjects left out: {', '.join(bad)}", flush=True)
    train, validation, stage_validation, test = (
        tuple(name for name in names if name not in bad)
        for names in (source.split.train, source.validation, source.stage_validation, source.split.test)
    )
    if not train or not test:
        raise UserError(f"--skip-bad: leaves {len(train)} training and {len(test)} test subjects, need one of each")
    split = dataclasses.replace(source.split, train=train, test=test)
    found = dataclasses.replace(source, split=split, validation=validation, stage_validation=stage_validation)
    return found, preparation
