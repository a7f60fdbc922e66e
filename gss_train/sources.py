"""From the settings to prepared subjects: the user's raw scans, or a phantom in the same layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gss_train.config import Config
from gss_train.data import Dataset, PreparedSubject, Split, find_subjects, prepare_dataset, split_subjects
from gss_train.engine.progress import show_progress
from gss_train.phantom import generate_phantoms

# The authors' preparation grows the brain's box to this many voxels on each axis, whatever the crop.
_PUBLISHED_BOX = 128
_PHANTOM_SEED = 0
_RULE = "=" * 78


def prepare_subjects(config: Config, dataset: Dataset) -> list[PreparedSubject]:
    """Find the raw scans, or make some, and prepare them; what an earlier run prepared is used again.

    Raises:
        LayoutError, VolumeError, PreparationError: the raw scans cannot be used.
        ModuleNotFoundError: a phantom is needed and the extra that makes it is not installed.
    """
    crop = config.data.crop
    grown = None
    if config.data.data_root is None:
        raw_root = _make_phantom(config, dataset)
        name = raw_root.name
    else:
        raw_root, name = config.data.data_root, dataset.name
        grown = (_PUBLISHED_BOX, _PUBLISHED_BOX, _PUBLISHED_BOX)
    subjects = find_subjects(raw_root, dataset)
    print(f"{len(subjects)} subjects found in {raw_root}", flush=True)
    folder = config.data.cache / "prepared" / f"{name}-crop{_dimensions(crop)}"
    with show_progress("preparing") as meter:
        return prepare_dataset(subjects, dataset, folder, crop, progress=meter, grown_size=grown)


def split(config: Config, dataset: Dataset, subjects: Sequence[PreparedSubject]) -> Split:
    """Divide the subjects in the published proportions; a phantom keeps more of its few for the test."""
    result = split_subjects(
        [subject.name for subject in subjects],
        dataset.published_split,
        config.run.seed,
        minimum_test=config.phantom.phantom_test_subjects if config.data.data_root is None else 1,
        grades={subject.name: subject.metadata.grade for subject in subjects},
    )
    print(f"Split: {len(result.train)} training, {len(result.validation)} validation, {len(result.test)} test subjects")
    return result


def _make_phantom(config: Config, dataset: Dataset) -> Path:
    options = config.phantom
    size = _dimensions(options.phantom_size)
    print(
        f"{_RULE}\n"
        f"NO --data-root: TRAINING ON A PHANTOM, not on patients. {options.phantom_subjects} simulated subjects of\n"
        f"{size} voxels are written in {dataset.title}'s own format and read back like it.\n"
        f"The scores below show that the software works; they say nothing about {dataset.title}.\n"
        f"{_RULE}",
        flush=True,
    )
    root = config.data.cache / "phantom" / f"{dataset.name}-{options.phantom_subjects}-subjects-{size}"
    with show_progress("phantom") as meter:
        generate_phantoms(dataset, root, options.phantom_subjects, _PHANTOM_SEED, options.phantom_size, progress=meter)
    return root


def _dimensions(size: tuple[int, int, int]) -> str:
    return "x".join(str(length) for length in size)
