"""Which subjects are trained, validated and tested on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gss_train.common import UserError
from gss_train.config import Config, DataOptions
from gss_train.data import Dataset, Split, read_split, split_fold, split_subjects
from gss_train.subjects.raw import RawData, find_raw


@dataclass(frozen=True)
class Source:
    """Raw subjects and what each is for.

    Attributes:
        raw: all of the data set.
        split: names for training, validation and test.
        validation: those of the validation subjects that are validated on while the run trains.
    """

    raw: RawData
    split: Split
    validation: tuple[str, ...]

    @property
    def used(self) -> RawData:
        """The subjects that the run needs."""
        return self.raw.only((*self.split.train, *self.validation, *self.split.test))


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
    wanted = config.validation.validation_subjects if config.validation.validate_every else 0
    source = Source(raw, Split(train, whole.validation, test), whole.validation[:wanted])
    left_out = len(whole.train) - len(train) + len(whole.test) - len(test)
    print(
        f"{len(train)} training and {len(test)} test subjects; "
        f"{len(whole.validation)} validation subjects are set aside, {len(source.validation)} of them to validate on"
        + (f"; {left_out} left out by --max-training-subjects and --max-test-subjects" if left_out else "")
    )
    return source


def _divide(raw: RawData, options: DataOptions, least_test: int) -> Split:
    """Divide the labelled subjects as the options say; a random division has `least_test` test subjects at least."""
    if options.split_file is not None:
        return _published_split(options.split_file, raw)
    subjects, proportions = list(raw.labelled.values()), raw.dataset.published_split
    flag = "--data-root" if options.manifest is None else "--manifest"
    try:
        if options.fold is not None and options.folds is not None:
            flag = "--folds"
            print(f"Fold {options.fold} of 0 to {options.folds - 1}, split {options.split_seed}")
            return split_fold(subjects, proportions, options.split_seed, options.fold, options.folds)
        if len(subjects) < 2 + least_test:
            raise UserError(
                f"{flag}: got {len(subjects)} labelled subjects, need at least {2 + least_test} to train and test on"
            )
        print(f"Split {options.split_seed}, in the proportions {':'.join(map(str, proportions))}")
        return split_subjects(subjects, proportions, options.split_seed, least_test)
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from error


def _published_split(path: Path, raw: RawData) -> Split:
    split, left_out = read_split(path, raw.names)
    labelled = raw.labelled
    lacking = sorted({*split.train, *split.validation, *split.test} - labelled.keys())
    if lacking:
        raise UserError(f"--split-file: {path} names {len(lacking)} subjects without label: {', '.join(lacking)}")
    unnamed = sum(name in labelled for name in left_out)
    print(f"Split of {path}" + (f"; it does not name {unnamed} subjects, left out" if unnamed else ""))
    return split
