"""Which subjects a trained network is scored on: as its run says, or as the command line does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gss_train.common import UserError
from gss_train.config import Config, DataOptions
from gss_train.data import Dataset, Split
from gss_train.runs import UNNAMED_SUBJECTS, StoredNetwork, StoredRun
from gss_train.subjects import RawData, find_raw, find_source, resolve_dataset

# Of these, where one is stated, the others are not the run's.
_SPLIT: dict[str, Any] = {
    "split": "seeded",
    "split_seed": 0,
    "fold": None,
    "folds": None,
    "split_file": None,
    "max_training_subjects": None,
    "max_test_subjects": None,
}


@dataclass(frozen=True)
class EvaluationData:
    """The data that a network is scored on.

    Attributes:
        config: settings by which the raw scans are found, and divided where there is no `split`.
        dataset: of the scans.
        split: that of the network's own run, if the data and their split are the run's.
    """

    config: Config
    dataset: Dataset
    split: Split | None


def choose_data(stored: StoredNetwork, stated: Mapping[str, Any]) -> EvaluationData:
    """Tell the data from the network's run, if it is of one, and from what the command line states.

    Args:
        stored: the network.
        stated: options of `DataOptions` by name, those alone that were stated.

    Raises:
        UserError: options are missing, out of range or contradict each other, or no data set is recognised.
    """
    run = stored.run
    own = None if run is None else run.config.data.dataset
    divides = not _SPLIT.keys().isdisjoint(stated)
    changes = {**_SPLIT, **stated} if divides else stated
    try:
        if run is None or stated.get("dataset") not in {None, own}:
            config = _without_run(stored, changes if divides else {"split": "auto", **stated})
        else:
            config = _within_run(run, changes)
        config, dataset = resolve_dataset(config)
        if run is None or dataset.name != own:
            return EvaluationData(config, dataset, None)
        if stated.get("dataset") == "auto":
            config = _within_run(run, {**changes, "dataset": own})
        return EvaluationData(config, dataset, None if divides else run.read_split())
    except ValueError as error:
        raise UserError(str(error)) from error


def _without_run(stored: StoredNetwork, stated: Mapping[str, Any]) -> Config:
    name = stated.get("dataset", None if stored.dataset is None else stored.dataset.name)
    if name is None:
        raise UserError(
            f"--dataset: is missing, {stored.origin} does not say what its {stored.num_categories} categories mean; "
            "need the BraTS edition of the scans, or auto"
        )
    box = None if stored.run is None else stored.run.config.data.box
    own = {"crop_size": stored.crop_size, "spacing": stored.spacing, "box": box}
    seen = {option: value for option, value in own.items() if value is not None}
    options = DataOptions(**{**seen, **stated, "dataset": name})
    if options.uses_phantom:
        raise UserError("--data-root: is missing, need the folder of the raw scans")
    return Config(options)


def _within_run(run: StoredRun, changes: Mapping[str, Any]) -> Config:
    return dataclasses.replace(run.config, data=dataclasses.replace(run.config.data, **changes))


def find_part(data: EvaluationData, part: str) -> tuple[RawData, Split | None]:
    """Find the raw subjects of a part, in the order of their split; those without a label cannot be scored.

    Args:
        data: what they are of.
        part: "train", "validation", "test" or "all".

    Returns:
        The subjects, and the split that the part is of; None for all.

    Raises:
        UserError: there are no scans, or not those of the run's split, or the split does not fit them.
        ModuleNotFoundError: a phantom is needed and the extra that makes it is not installed.
    """
    split = None if part == "all" else data.split
    if split is None and part != "all":
        source = find_source(data.config, data.dataset)
        raw, split = source.raw, source.split
    else:
        raw = find_raw(data.config, data.dataset)
    names = tuple(raw.labelled) if split is None else getattr(split, part)
    lacking = [name for name in names if name not in raw.labelled]
    if lacking:
        flag = "--data-root" if data.config.data.manifest is None else "--manifest"
        raise UserError(
            f"{flag}: lacks {len(lacking)} of the {len(names)} {part} subjects of the run, such as {lacking[0]}; other "
            "data need a split of their own (--split, --split-file, --split-seed or --fold) or --part all"
        )
    if not names:
        raise UserError(f"--part: {part} has no subject with a label")
    return raw.only(names), split


def refuse_training_subjects(stored: StoredNetwork, names: Sequence[str]) -> None:
    """Refuse to score a network on subjects that it was trained on.

    Raises:
        UserError: it was trained on some of these.
    """
    leaked = [name for name in names if name in stored.training_subjects]
    if leaked:
        raise UserError(
            f"--part: {stored.origin} was trained on {len(leaked)} of these {len(names)} subjects, such as "
            f"{leaked[0]}; take the split of its run, or --part train to score what it has seen"
        )
    if not stored.training_subjects or UNNAMED_SUBJECTS in stored.training_subjects:
        print(f"{stored.origin} does not say which subjects it was trained on; make sure that it was on none of these")
