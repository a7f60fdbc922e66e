"""The raw subjects that the settings name, the user's or a phantom's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gss_train.common import Triple, UserError, show_progress
from gss_train.config import Config, PhantomOptions
from gss_train.data import (
    DATASETS,
    MODALITIES,
    Dataset,
    Spacing,
    Subject,
    box_size,
    find_subjects,
    read_manifest,
    recognise_dataset,
    size_name,
)
from gss_train.phantom import Grid, generate_phantoms, phantom_name
from gss_train.subjects.cache import phantom_folder, prepared_folder

_PHANTOM_SEED = 0
_RULE = "=" * 78


@dataclass(frozen=True)
class RawData:
    """Raw subjects, and how they are prepared.

    Attributes:
        dataset: what their files are called and what their labels mean.
        subjects: with different names.
        name: of the data set's prepared volumes.
        cache: folder that they go to, into one of their own.
        grown_size: see `gss_train.data.prepare_dataset`.
        spacing: likewise.
        released_box: likewise.
    """

    dataset: Dataset
    subjects: list[Subject]
    name: str
    cache: Path
    grown_size: Triple
    spacing: Spacing | None = None
    released_box: bool = False

    @property
    def prepared_folder(self) -> Path:
        """Where the prepared volumes go."""
        size = "" if self.spacing is None else f"-{size_name(self.spacing)}"
        box = "-released" if self.released_box else ""
        return prepared_folder(self.cache, f"{self.name}{size}{box}")

    @property
    def names(self) -> list[str]:
        """Of all subjects."""
        return [subject.name for subject in self.subjects]

    @cached_property
    def labelled(self) -> dict[str, Subject]:
        """Those that can be trained on and scored, by name."""
        return {subject.name: subject for subject in self.subjects if subject.label is not None}

    def only(self, names: Iterable[str]) -> RawData:
        """The subjects of these names, in the names' order."""
        by_name = {subject.name: subject for subject in self.subjects}
        return dataclasses.replace(self, subjects=[by_name[name] for name in names])


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
        # What is trained on it then knows the voxels that it has seen.
        length = Grid.for_brain(config.phantom.phantom_size).spacing
        return config, dataclasses.replace(DATASETS[options.dataset], spacing=(length, length, length))
    if options.dataset != "auto":
        return config, DATASETS[options.dataset]
    assert options.data_root is not None
    dataset, count = recognise_dataset(options.data_root)
    print(f"Recognised {dataset.title} ({dataset.name}): {count} subjects below {options.data_root}", flush=True)
    return config.with_dataset(dataset.name), dataset


def find_raw(config: Config, dataset: Dataset) -> RawData:
    """Find the raw scans, or make some, and say what is there.

    Raises:
        UserError: there are no scans.
        ModuleNotFoundError: a phantom is needed and the extra that makes it is not installed.
    """
    options = config.data
    spacing = options.voxel_size
    grown_size = box_size(spacing)
    if options.manifest is not None:
        root, name = options.manifest, f"{dataset.name}-{options.manifest.stem}"
        subjects = read_manifest(options.manifest, options.categories)[1]
    else:
        if options.data_root is not None:
            root, name = options.data_root, dataset.name
        else:
            # A phantom may be smaller than the published box; its own box does as well and trains faster.
            root = _make_phantom(config.phantom, dataset, options.cache)
            grown_size, name = (1, 1, 1), root.name
        subjects = find_subjects(root, dataset, require_labels=False)
    _print_found(subjects, root)
    return RawData(dataset, subjects, name, options.cache, grown_size, spacing, options.box == "released")


def _print_found(subjects: list[Subject], root: Path) -> None:
    print(f"{len(subjects)} subjects found in {root}", flush=True)
    partial = sum(len(subject.images) < len(MODALITIES) for subject in subjects)
    if partial:
        print(f"{partial} of them lack one to three of the scans {', '.join(MODALITIES)}")
    unlabelled = [subject.name for subject in subjects if subject.label is None]
    if unlabelled:
        print(f"{len(unlabelled)} of them have no label, such as {unlabelled[0]}: not trained or tested on")


def _make_phantom(options: PhantomOptions, dataset: Dataset, cache: Path) -> Path:
    """Simulate subjects, or find those of an earlier run, and say that they are no patients; their folder."""
    name = phantom_name(dataset.name, options.phantom_subjects, options.phantom_size)
    print(
        f"{_RULE}\n"
        f"NO --data-root: TRAINING ON A PHANTOM, not on patients. Simulated subjects,\n"
        f"{name}, are written in {dataset.title}'s own format and read back like it.\n"
        f"The scores below show that the software works; they say nothing about {dataset.title}.\n"
        f"{_RULE}",
        flush=True,
    )
    root = phantom_folder(cache, name)
    with show_progress("phantom") as meter:
        try:
            generate_phantoms(
                dataset.name, root, options.phantom_subjects, _PHANTOM_SEED, options.phantom_size, progress=meter
            )
        except ValueError as error:
            raise UserError(f"--phantom-size: {error}") from error
    return root
