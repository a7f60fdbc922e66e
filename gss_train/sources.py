"""From the settings to subjects: the user's raw scans, or a phantom in the same layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gss_train.config import Config
from gss_train.data import Dataset, PreparedSubject, Split, Subject, find_subjects, prepare_dataset, split_subjects
from gss_train.engine.progress import show_progress
from gss_train.errors import UserError
from gss_train.phantom import GENERATOR_VERSION, generate_phantoms

# The authors' preparation grows the brain's box to this many voxels on each axis, whatever the crop.
_PUBLISHED_BOX = (128, 128, 128)
_PHANTOM_SEED = 0
_RULE = "=" * 78


@dataclass(frozen=True)
class Source:
    """Raw subjects and what each is for.

    Attributes:
        subjects: by name; those that the run trains and tests on.
        split: names for training, validation and test.
        prepared_folder: where their prepared volumes go.
        grown_size: see `gss_train.data.prepare_subject`.
    """

    subjects: dict[str, Subject]
    split: Split
    prepared_folder: Path
    grown_size: tuple[int, int, int]


def find_source(config: Config, dataset: Dataset) -> Source:
    """Find the raw scans, or make some, and divide them.

    Raises:
        UserError: there are no scans, or too few.
        ModuleNotFoundError: a phantom is needed and the extra that makes it is not installed.
    """
    options = config.data
    if options.data_root is None:
        # A phantom may be smaller than the published box; its own box does as well and trains faster.
        root, grown_size = _make_phantom(config, dataset), options.crop
        name = root.name
    else:
        root, grown_size, name = options.data_root, _PUBLISHED_BOX, dataset.name
    found = {subject.name: subject for subject in find_subjects(root, dataset)}
    print(f"{len(found)} subjects found in {root}", flush=True)
    split = _split(config, dataset, list(found.values()))
    used = {name: found[name] for name in (*split.train, *split.test)}
    crop = "x".join(str(length) for length in options.crop)
    return Source(used, split, options.cache / "prepared" / f"{name}-crop{crop}", grown_size)


def prepare(config: Config, dataset: Dataset, source: Source) -> dict[str, PreparedSubject]:
    """Prepare the subjects; what an earlier run prepared is used again.

    Raises:
        UserError: the raw scans cannot be used.
    """
    with show_progress("preparing") as meter:
        prepared = prepare_dataset(
            list(source.subjects.values()),
            dataset,
            source.prepared_folder,
            config.data.crop,
            progress=meter,
            grown_size=source.grown_size,
        )
    return {subject.name: subject for subject in prepared}


def _split(config: Config, dataset: Dataset, subjects: Sequence[Subject]) -> Split:
    """Divide the subjects in the published proportions; a phantom keeps more of its few for the test."""
    options = config.data
    least_test = config.phantom.phantom_test_subjects if options.data_root is None else 1
    if len(subjects) < 2 + least_test:
        raise UserError(
            f"--data-root: got {len(subjects)} subjects, need at least {2 + least_test} to train and test on"
        )
    whole = split_subjects(
        [subject.name for subject in subjects],
        dataset.published_split,
        options.split_seed,
        minimum_test=least_test,
        grades={subject.name: subject.grade for subject in subjects},
    )
    split = Split(
        whole.train[: options.max_training_subjects], whole.validation, whole.test[: options.max_test_subjects]
    )
    left_out = len(whole.train) - len(split.train) + len(whole.test) - len(split.test)
    print(
        f"Split {options.split_seed}: {len(split.train)} training and {len(split.test)} test subjects; "
        f"{len(whole.validation)} validation subjects are set aside"
        + (f", {left_out} left out by --max-training-subjects and --max-test-subjects" if left_out else "")
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
