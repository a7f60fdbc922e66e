"""Which of the raw subjects are for training, validation and test."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from gss_train.common import UserError
from gss_train.config import Config, DataOptions
from gss_train.data import (
    Dataset,
    PublishedSplit,
    Split,
    describe_split,
    published_splits,
    read_split,
    same_subjects,
    split_fold,
    split_subjects,
)
from gss_train.subjects.raw import RawData, find_raw


@dataclass(frozen=True)
class Source:
    """Raw subjects and what each is for.

    Attributes:
        raw: all of the data set.
        split: names for training, validation and test.
        validation: those of the validation subjects that are validated on every so often.
        stage_validation: those that are validated on at the ends of stages.
    """

    raw: RawData
    split: Split
    validation: tuple[str, ...]
    stage_validation: tuple[str, ...] = ()

    @property
    def used(self) -> RawData:
        """The subjects that the run needs."""
        validation = dict.fromkeys((*self.validation, *self.stage_validation))
        return self.raw.only((*self.split.train, *validation, *self.split.test))


def find_source(config: Config, dataset: Dataset) -> Source:
    """Find the raw scans, or make some, and divide those that have a label.

    Raises:
        UserError: there are no scans, or too few, or the split does not fit them.
        ModuleNotFoundError: a phantom is needed and the extra that makes it is not installed.
    """
    raw = find_raw(config, dataset)
    # A phantom keeps more of its few subjects for the test.
    least_test = config.phantom.phantom_test_subjects if config.data.uses_phantom else 1
    whole = _divide(raw, config.data, least_test)
    train, test = whole.train[: config.data.max_training_subjects], whole.test[: config.data.max_test_subjects]
    often = whole.validation[: config.validation.validation_subjects if config.validation.validate_every else 0]
    at_ends = whole.validation if often and config.validation.stage_validation else ()
    source = Source(raw, Split(train, whole.validation, test, whole.name), often, at_ends)
    left_out = len(whole.train) - len(train) + len(whole.test) - len(test)
    print(
        f"{len(train)} training and {len(test)} test subjects; "
        f"{len(whole.validation)} validation subjects are set aside, {len(often)} of them to validate on"
        + (", all at the end of a stage" if at_ends else "")
        + (f"; {left_out} left out by --max-training-subjects and --max-test-subjects" if left_out else "")
    )
    return source


def find_listed(raw: RawData, options: DataOptions) -> tuple[Split, tuple[str, ...]] | None:
    """Find the subjects of the list that the options stand for, a published one or a file.

    Returns:
        The split, and the names of the subjects that the list does not have; None if there is no list.

    Raises:
        SplitError: the list cannot be read, or does not fit the subjects.
    """
    if options.split_file is not None:
        split, left_out = read_split(options.split_file, raw.names)
        return dataclasses.replace(split, name=f"--split-file {options.split_file.name}"), left_out
    published = _pick_published(raw, options)
    return None if published is None else published.find(list(raw.labelled))


def _pick_published(raw: RawData, options: DataOptions) -> PublishedSplit | None:
    """That which `--split` names; for `auto` the first of exactly the subjects at hand, unless others go first."""
    known = published_splits(raw.dataset.name)
    if options.split != "auto":
        return known.get(options.split)
    if options.fold is not None or options.split_seed != 0 or options.uses_phantom:
        return None
    return next((published for published in known.values() if same_subjects(published.subjects, raw.labelled)), None)


def _divide(raw: RawData, options: DataOptions, least_test: int) -> Split:
    """Divide the labelled subjects as the options say; a random split has `least_test` test subjects at least."""
    found = find_listed(raw, options)
    if found is None:
        return _draw(raw, options, least_test)
    split, left_out = found
    lacking = sorted({*split.train, *split.validation, *split.test} - raw.labelled.keys())
    if lacking:
        path = options.split_file
        raise UserError(f"--split-file: {path} names {len(lacking)} subjects without label: {', '.join(lacking)}")
    unnamed = sum(name in raw.labelled for name in left_out)
    title = options.split_file or describe_split(raw.dataset.name, split.name)
    print(f"Split of {title}" + (f"; it does not name {unnamed} subjects, left out" if unnamed else ""))
    return split


def _draw(raw: RawData, options: DataOptions, least_test: int) -> Split:
    subjects, proportions, seed = list(raw.labelled.values()), raw.dataset.published_split, options.split_seed
    flag = "--data-root" if options.manifest is None else "--manifest"
    caveat = "" if options.uses_phantom else "; drawn by seed, its scores are not comparable with published ones"
    try:
        if options.fold is not None and options.folds is not None:
            flag = "--folds"
            print(f"Fold {options.fold} of 0 to {options.folds - 1}, split {seed}{caveat}")
            split = split_fold(subjects, proportions, seed, options.fold, options.folds)
            name = f"--fold {options.fold} --folds {options.folds} --split-seed {seed}"
            return dataclasses.replace(split, name=name)
        if len(subjects) < 2 + least_test:
            raise UserError(
                f"{flag}: got {len(subjects)} labelled subjects, need at least {2 + least_test} to train and test on"
            )
        print(f"Split {seed}, in the proportions {':'.join(map(str, proportions))}{caveat}")
        split = split_subjects(subjects, proportions, seed, least_test)
        return dataclasses.replace(split, name=f"seeded, --split-seed {seed}")
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from error
