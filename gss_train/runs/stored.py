"""What lies on the disk: what a folder says of its run, and run folders and files of weights of the network in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

from gss_train.common import Triple, UserError, times
from gss_train.config import CONFIG_FILE, ComputedPrecision, Config, config_from_json, with_defaults
from gss_train.data import DATASETS, Dataset, Spacing, Split, to_spacing
from gss_train.models import NETWORKS, recognise_public_checkpoint
from gss_train.runs.checkpoints import CheckpointError, CheckpointStore, read_checkpoint

DATASET_FILE, SPLIT_FILE = "dataset.json", "split.json"
CHECKPOINTS_FOLDER = "checkpoints"
EXPORT_FORMAT = "gss-export-1"
_RUN_FORMATS = {"gss-checkpoint-1", "gss-checkpoint-2"}
_WANTED = "need a run folder, one of its checkpoints, an exported network, or a checkpoint of RFNet, GSS or mmFormer"

UNNAMED_SUBJECTS = "(unnamed subjects)"
"""Stands among the training subjects of a network for those of weights that it began from, where these name none."""

_STAGE = re.compile(r"(?P<name>baseline|gss-round-(?P<round>[0-9]+))\.pt")


@dataclass(frozen=True)
class StoredRun:
    """What the folder of a run says of it.

    Attributes:
        folder: of the run.
        config: its settings.
        dataset: that it trains on.
    """

    folder: Path
    config: Config
    dataset: Dataset

    def read_split(self) -> Split:
        """The subjects that it trains, validates and tests on.

        Raises:
            UserError: they cannot be read.
        """
        path = self.folder / SPLIT_FILE
        values = read_json(path)
        try:
            train, validation, test = (tuple(map(str, values[part])) for part in ("train", "validation", "test"))
            # Runs of earlier versions lack the name.
            return Split(train, validation, test, str(values.get("name", "")))
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: is damaged, need the names for train, validation and test: {error!r}") from error


def read_run(folder: Path) -> StoredRun | None:
    """Read what a folder says of its run; None if it has none.

    Raises:
        UserError: a file cannot be read; the message names it.
    """
    values = old_config(folder)
    if values is None:
        return None
    config = config_from_json(with_defaults(values), folder / CONFIG_FILE)
    path = folder / DATASET_FILE
    # Runs of earlier versions lack it; what an edition of BraTS is, is known all the same.
    if not path.exists() and config.data.dataset in DATASETS:
        return StoredRun(folder, config, DATASETS[config.data.dataset])
    try:
        return StoredRun(folder, config, Dataset.from_json(read_json(path)))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: is damaged: {error}") from error


def old_config(folder: Path) -> dict[str, Any] | None:
    """The settings of the run in a folder, as JSON values; None if there is no run.

    Raises:
        UserError: they cannot be read.
    """
    return read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).exists() else None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a run has written.

    Raises:
        UserError: it cannot be read; the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read, need the JSON that the run has written: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, need a JSON object")
    return content


@dataclass(frozen=True)
class Architecture:
    """What decides over the shapes of a network's weights.

    Attributes:
        network_name: of `gss_train.models.NETWORKS`.
        width: channels of one modality at the finest level.
        num_categories: number of categories C, background included.
        crop_size: voxels of the crops that it is trained on; None where that is not said.
    """

    network_name: str
    width: int
    num_categories: int
    crop_size: Triple | None

    @classmethod
    def of_run(cls, config: Config, dataset: Dataset) -> Self:
        """That of a run with these settings, on this data set."""
        name = config.network.network
        width = config.network.width or NETWORKS[name].width
        return cls(name, width, dataset.num_categories, config.data.crop)

    def __str__(self) -> str:
        """With the crop size where the network has learnt it."""
        is_sized = NETWORKS[self.network_name].sized and self.crop_size is not None
        crops = f" for crops of {times(self.crop_size or ())}" if is_sized else ""
        return f"{self.network_name} of width {self.width} and {self.num_categories} categories{crops}"


@dataclass(frozen=True)
class StoredNetwork(Architecture):
    """A network as it lies on the disk.

    Attributes:
        origin: the run folder or file.
        dataset: that it was trained on; None where that is not said.
        weights: of the network by their names, or, if `is_public`, the whole checkpoint; not yet checked.
        is_public: whether these are as the authors of RFNet, GSS and mmFormer publish them.
        training_subjects: names of the subjects that it was trained on, as far as known.
        run: that it is of, as far as known.
        spacing: voxel size in millimetres that scans were brought to; None: that which they had.
        precision: that it computed in when it was trained last; None where that is not said. "float32" of a run on a
            GPU of a version before `tf32` was one of the precisions is TF32 in convolutions, if the GPU has it.
    """

    origin: Path
    dataset: Dataset | None
    weights: Mapping[str, Any]
    is_public: bool = False
    training_subjects: frozenset[str] = frozenset()
    run: StoredRun | None = None
    spacing: Spacing | None = None
    precision: ComputedPrecision | None = None


def names_of_weights(folder: Path) -> list[str]:
    """Names of the weights that a run folder has, as `read_stored` takes them: last, best, and finished stages."""
    stages = [match for path in folder.iterdir() if (match := _STAGE.fullmatch(path.name)) is not None]
    best = ["best"] if CheckpointStore(folder / CHECKPOINTS_FOLDER, keep=1).best.exists() else []
    return ["last", *best, *(match["name"] for match in sorted(stages, key=lambda match: int(match["round"] or 0)))]


def read_stored(
    path: Path, weights: str = "last", *, averaged: bool = True, assumed: Architecture | None = None
) -> StoredNetwork:
    """Read what is at a path; what a file is, is told from its content, whatever its name.

    Args:
        path: a run folder, one of its checkpoints, a file of `export_network`, or a checkpoint that the authors of
            RFNet, GSS or mmFormer publish.
        weights: of a run folder: "last", those after its last step; "best", those of its best validation; or those at
            the end of a stage, such as "baseline" or "gss-round-1". Files are taken as they are.
        averaged: of a run with `--ema`: whether to take the averaged weights, as the run itself evaluates, or the
            trained ones.
        assumed: what a checkpoint is of that lies in no run folder; None: there, it cannot be used.

    Raises:
        UserError: there is nothing of that kind, or it is damaged; the message names it.
    """
    if path.is_dir():
        run = read_run(path)
        if run is None:
            raise UserError(f"{path}: is not the folder of a run, has no config.json; {_WANTED}")
        return _from_run(path, run, _pick_checkpoint(run, weights), averaged=averaged)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder, {_WANTED}")
    content = read_checkpoint(path)
    kind = content.get("format")
    if kind == EXPORT_FORMAT:
        return _from_export(path, content)
    if kind in _RUN_FORMATS:
        run = _run_around(path, is_needed=assumed is None)
        return _from_run(path, run, content, averaged=averaged, assumed=assumed)
    return _from_public(path, content)


def _pick_checkpoint(run: StoredRun, weights: str) -> dict[str, Any]:
    folder = run.folder
    store = CheckpointStore(folder / CHECKPOINTS_FOLDER, keep=1)
    if weights == "best":
        best = store.best
        if not best.exists():
            raise UserError(
                f"--weights best: {folder} has no {best.name}, as it has not validated (--validate-every); take "
                "--weights last"
            )
        return read_checkpoint(best)
    if weights != "last":
        names = names_of_weights(folder)
        if weights not in names:
            raise UserError(f"--weights: got {weights}, {folder} has {', '.join(names)}")
        return read_checkpoint(folder / f"{weights}.pt")
    content = store.newest(lambda message: print(message, flush=True))
    if content is None:
        others = sorted(folder.glob("*.pt"))
        hint = f"; {others[-1]} can be named itself" if others else ""
        raise UserError(f"{folder}: has no weights, there is no checkpoint in {store.folder}{hint}")
    position = content.get("position", {})
    # Checkpoints of earlier versions do not say it themselves.
    at_end = position.get("stage", 0) >= run.config.training.num_stages
    if not content.get("progress", {}).get("finished", at_end):
        step = position.get("step")
        print(f"{folder}: its training is not at its end; these are the weights after step {step}", flush=True)
    return content


def _run_around(path: Path, *, is_needed: bool) -> StoredRun | None:
    """The run that a checkpoint lies in; unless that is needed, a `config.json` near it may be of anything."""
    for folder in path.absolute().parents[:2]:
        try:
            run = read_run(folder)
        except UserError:
            if is_needed:
                raise
            continue
        if run is not None:
            return run
    return None


def _from_run(
    path: Path, run: StoredRun | None, content: dict[str, Any], *, averaged: bool, assumed: Architecture | None = None
) -> StoredNetwork:
    if run is not None:
        assumed = Architecture.of_run(run.config, run.dataset)
    if assumed is None:
        raise UserError(
            f"{path}: is a checkpoint out of a run folder, whose config.json says how to build its network; put it "
            "back, or name the run folder, or export it from there to one file that stands alone"
        )
    try:
        weights = content.get("averaged") if averaged else None
        weights = content["weights"] if weights is None else weights
        progress = content["progress"]
        subjects, precision = frozenset(progress.get("training_subjects", ())), _read_precision(progress)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: is a damaged checkpoint: {error!r}") from error
    dataset = None if run is None else run.dataset
    return StoredNetwork(
        **vars(assumed),
        origin=path,
        dataset=dataset,
        weights=weights,
        training_subjects=subjects,
        run=run,
        spacing=None if run is None else run.config.data.voxel_size,
        precision=precision,
    )


def _from_export(path: Path, content: dict[str, Any]) -> StoredNetwork:
    try:
        dataset = Dataset.from_json(content["dataset"])
        x, y, z = map(int, content["crop_size"])
        name, width = str(content["network"]), int(content["width"])
        weights, subjects = content["weights"], frozenset(map(str, content["training_subjects"]))
        # Files of earlier versions lack it: their scans were as they are.
        spacing = None if content.get("spacing") is None else to_spacing(content["spacing"])
        precision = _read_precision(content)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is a damaged exported network: {error!r}") from error
    if name not in NETWORKS:
        raise CheckpointError(f"{path}: is an exported {name!r}, need one of {', '.join(NETWORKS)}")
    return StoredNetwork(
        name,
        width,
        dataset.num_categories,
        (x, y, z),
        path,
        dataset,
        weights,
        training_subjects=subjects,
        spacing=spacing,
        precision=precision,
    )


def _read_precision(content: Mapping[str, Any]) -> ComputedPrecision | None:
    """Files of earlier versions may lack it."""
    precision: ComputedPrecision | None = content.get("precision")
    if precision not in {None, *get_args(ComputedPrecision)}:
        raise ValueError(f"its precision is {precision!r}, need one of {', '.join(get_args(ComputedPrecision))}")
    return precision


def _from_public(path: Path, content: dict[str, Any]) -> StoredNetwork:
    kind = recognise_public_checkpoint(content)
    if kind is None:
        held = ", ".join(map(str, list(content)[:3])) or "nothing"
        raise CheckpointError(f"{path}: is not known (it holds {held}, ...), {_WANTED}")
    five = DATASETS["brats2015"]
    dataset = five if kind.num_categories == five.num_categories else None
    return StoredNetwork(
        kind.network_name, kind.width, kind.num_categories, kind.crop_size, path, dataset, content, is_public=True
    )
