"""From the settings to subjects: the user's raw scans, or a phantom, and what each is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gss_train.common import UserError, show_progress
from gss_train.config import Config
from gss_train.data import (
    DATASETS,
    MODALITIES,
    PUBLISHED_BOX,
    Dataset,
    Preparation,
    Split,
    Subject,
    describe_faults,
    find_subjects,
    prepare_dataset,
    read_manifest,
    read_split,
    recognise_dataset,
    split_fold,
    split_subjects,
)
from gss_train.phantom import GENERATOR_VERSION, Grid, generate_phantoms

_PHANTOM_SEED = 0
_RULE = "=" * 78


@dataclass(frozen=True)
class RawData:
    """Raw subjects, and how they are prepared.

    Attributes:
        subjects: all of the data set, sorted by name.
        prepared_folder: where their prepared volumes go.
        grown_size: see `gss_train.data.prepare_subject`.
    """

    subjects: list[Subject]
    prepared_folder: Path
    grown_size: tuple[int, int, int]


@dataclass(frozen=True)
class Source:
    """Raw subjects and what each is for.

    Attributes:
        subjects: by name; those that the run uses.
        split: names for training, validation and test.
        validation: those of the validation subjects that are validated on while the run trains.
        prepared_folder: where their prepared volumes go.
        grown_size: see `gss_train.data.prepare_subject`.
    """

    subjects: dict[str, Subject]
    split: Split
    validation: tuple[str, ...]
    prepared_folder: Path
    grown_size: tuple[int, int, int]


def resolve_dataset(config: Config) -> tuple[Config, Dataset]:
    """Tell the data set from the settings, from what lies below `--data-root`, or from the manifest.

    Returns:
        The settings, with the name of the edition in place of `auto`, and the data set.

    Raises:
        UserError: no edition is recognised, or several; or the manifest or its categories have faults.
    """
    options = config.data
    if options.manifest is not None:
        return config, read_manifest(options.manifest, options.categories)[0]
    if options.uses_phantom:
        # So that what is trained on it knows the voxels that it has seen.
        length = Grid.for_brain(config.phantom.phantom_size).spacing
        return config, dataclasses.replace(DATASETS[options.dataset], spacing=(length, length, length))
    if options.dataset != "auto":
        return config, DATASETS[options.dataset]
    assert options.data_root is not None
    dataset, count = recognise_dataset(options.data_root)
    print(f"Recognised {dataset.title} ({dataset.name}): {count} subjects below {options.data_root}", flush=True)
    return config.with_dataset(dataset.name), dataset


def find_raw(config: Config, dataset: Dataset) -> RawData:
    """Find the raw scans, or make some.

    Raises:
        UserError: there are no scans.
        ModuleNotFoundError: a phantom is needed and the extra that makes it is not installed.
    """
    options = config.data
    grown_size = PUBLISHED_BOX
    if options.manifest is not None:
        root, name = options.manifest, f"{dataset.name}-{options.manifest.stem}"
        subjects = read_manifest(options.manifest, options.categories)[1]
    else:
        if options.data_root is not None:
            root, name = options.data_root, dataset.name
        else:
            # A phantom may be smaller than the published box; its own box does as well and trains faster.
            root, grown_size = _make_phantom(config, dataset), options.crop
            name = root.name
        subjects = find_subjects(root, dataset, require_labels=False)
    _print_found(subjects, root)
    crop = "x".join(str(length) for length in options.crop)
    return RawData(subjects, options.cache / "prepared" / f"{name}-crop{crop}", grown_size)


def find_source(config: Config, dataset: Dataset) -> Source:
    """Find the raw scans, or make some, and divide those that have a label.

    Raises:
        UserError: there are no scans, or too few, or the split does not fit them.
        ModuleNotFoundError: a phantom is needed and the extra that makes it is not installed.
    """
    raw = find_raw(config, dataset)
    labelled = {subject.name: subject for subject in raw.subjects if subject.label is not None}
    split = _limit(config, _split(config, dataset, raw.subjects))
    wanted = config.validation.validation_subjects if config.validation.validate_every else 0
    validation = split.validation[:wanted]
    used = {name: labelled[name] for name in (*split.train, *validation, *split.test)}
    return Source(used, split, validation, raw.prepared_folder, raw.grown_size)


def prepare(config: Config, dataset: Dataset, source: Source) -> tuple[Source, Preparation]:
    """Verify and prepare the subjects; what an earlier run prepared is used again.

    Returns:
        The source without the subjects that `--skip-bad` leaves out, and what was prepared.

    Raises:
        UserError: the raw scans cannot be used, or too few of them.
    """
    with show_progress("preparing") as meter:
        preparation = prepare_dataset(
            list(source.subjects.values()),
            dataset,
            source.prepared_folder,
            config.data.crop,
            progress=meter,
            grown_size=source.grown_size,
            skip_bad=config.data.skip_bad,
        )
    listed = [*preparation.left_out, *preparation.warnings]
    if listed:
        print(describe_faults(listed), flush=True)
    return _without(source, preparation.names_left_out), preparation


def _without(source: Source, names: Sequence[str]) -> Source:
    if not names:
        return source
    print(f"--skip-bad: {len(names)} of {len(source.subjects)} subjects left out: {', '.join(names)}", flush=True)
    train, validation, test = (
        tuple(name for name in part if name not in names)
        for part in (source.split.train, source.validation, source.split.test)
    )
    if not train or not test:
        raise UserError(f"--skip-bad: leaves {len(train)} training and {len(test)} test subjects, need one of each")
    subjects = {name: subject for name, subject in source.subjects.items() if name not in names}
    return dataclasses.replace(
        source, subjects=subjects, split=Split(train, source.split.validation, test), validation=validation
    )


def _print_found(subjects: Sequence[Subject], root: Path) -> None:
    print(f"{len(subjects)} subjects found in {root}", flush=True)
    partial = sum(len(subject.images) < len(MODALITIES) for subject in subjects)
    if partial:
        print(f"{partial} of them lack one to three of the scans {', '.join(MODALITIES)}")
    unlabelled = [subject.name for subject in subjects if subject.label is None]
    if unlabelled:
        print(f"{len(unlabelled)} of them have no label, such as {unlabelled[0]}: not trained or tested on")


def _split(config: Config, dataset: Dataset, subjects: Sequence[Subject]) -> Split:
    """Divide the labelled subjects as asked."""
    options = config.data
    if options.split_file is not None:
        return _published_split(options.split_file, subjects)
    grades = {subject.name: subject.grade for subject in subjects if subject.label is not None}
    patients = {subject.name: subject.patient or subject.name for subject in subjects}
    names, proportions = list(grades), dataset.published_split
    if options.fold is not None and options.folds is not None:
        print(f"Fold {options.fold} of 0 to {options.folds - 1}, split {options.split_seed}")
        try:
            return split_fold(
                names, options.fold, options.folds, options.split_seed, proportions, grades=grades, patients=patients
            )
        except ValueError as error:
            raise UserError(f"--folds: {error}") from error
    # A phantom keeps more of its few subjects for the test.
    least_test = config.phantom.phantom_test_subjects if options.uses_phantom else 1
    flag = "--data-root" if options.manifest is None else "--manifest"
    if len(names) < 2 + least_test:
        raise UserError(
            f"{flag}: got {len(names)} labelled subjects, need at least {2 + least_test} to train and test on"
        )
    print(f"Split {options.split_seed}, in the proportions {':'.join(map(str, proportions))}")
    try:
        return split_subjects(
            names, proportions, options.split_seed, minimum_test=least_test, grades=grades, patients=patients
        )
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from error


def _published_split(path: Path, subjects: Sequence[Subject]) -> Split:
    split, left_out = read_split(path, [subject.name for subject in subjects])
    unlabelled = {subject.name for subject in subjects if subject.label is None}
    lacking = sorted(unlabelled & {*split.train, *split.validation, *split.test})
    if lacking:
        raise UserError(f"--split-file: {path} names {len(lacking)} subjects without label: {', '.join(lacking)}")
    unnamed = [name for name in left_out if name not in unlabelled]
    print(f"Split of {path}" + (f"; it does not name {len(unnamed)} subjects, left out" if unnamed else ""))
    return split


def _limit(config: Config, whole: Split) -> Split:
    """Leave out what `--max-training-subjects` and `--max-test-subjects` do not allow."""
    options, validation = config.data, config.validation
    split = Split(
        whole.train[: options.max_training_subjects], whole.validation, whole.test[: options.max_test_subjects]
    )
    left_out = len(whole.train) - len(split.train) + len(whole.test) - len(split.test)
    used = min(len(whole.validation), validation.validation_subjects) if validation.validate_every else 0
    print(
        f"{len(split.train)} training and {len(split.test)} test subjects; "
        f"{len(whole.validation)} validation subjects are set aside, {used} of them to validate on"
        + (f"; {left_out} left out by --max-training-subjects and --max-test-subjects" if left_out else "")
    )
    return split


def _make_phantom(config: Config, dataset: Dataset) -> Path:
    options = config.phantom
    size = "x".join(str(length) for length in options.phantom_size)
    print(
        f"{_RULE}\n"
        f"NO --data-root: TRAINING ON A PHANTOM, not on patients. {options.phantom_subjects} simulated subjects of\n"
        f"{size} voxels are written in {dataset.title}'s own format and read back like it.\n"
        f"The scores below show that the software works; they say nothing about {dataset.title}.\n"
        f"{_RULE}",
        flush=True,
    )
    name = f"{dataset.name}-{options.phantom_subjects}-subjects-{size}-version{GENERATOR_VERSION}"
    root = config.data.cache / "phantom" / name
    with show_progress("phantom") as meter:
        try:
            generate_phantoms(
                dataset, root, options.phantom_subjects, _PHANTOM_SEED, options.phantom_size, progress=meter
            )
        except ValueError as error:
            raise UserError(f"--phantom-size: {error}") from error
    return root
