"""What run folders and files of weights say of the network that is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gss_train.common import Triple, UserError
from gss_train.config import Config, config_from_json
from gss_train.data import DATASETS, Dataset, Split
from gss_train.models import NETWORKS, recognise_public_checkpoint
from gss_train.runs.checkpoint_file import CheckpointError, read_checkpoint
from gss_train.runs.checkpoint_store import CheckpointStore
from gss_train.runs.folder import old_config
from gss_train.training import plan_stages

EXPORT_FORMAT = "gss-export-1"
_RUN_FORMATS = {"gss-checkpoint-1", "gss-checkpoint-2"}
_WANTED = "need a run folder, one of its checkpoints, an exported network, or a checkpoint of RFNet, GSS or mmFormer"

WeightsName = Literal["last", "best"]


@dataclass(frozen=True)
class StoredNetwork:
    """A network as it lies on the disk; what is not said there is None.

    Attributes:
        origin: the run folder or file.
        network_name: of `gss_train.models.registry.NETWORKS`.
        width: channels of one modality at the finest level.
        num_categories: number of categories C, background included.
        crop_size: voxels of the crops that it was trained on.
        dataset: that it was trained on.
        weights: of the network by their names, or, if `is_public`, the whole checkpoint; not yet checked.
        is_public: whether these are as the authors of RFNet, GSS and mmFormer publish them.
        training_subjects: names of the subjects that it was trained on, as far as known.
        run: the run folder that it is from.
    """

    origin: Path
    network_name: str
    width: int
    num_categories: int
    crop_size: Triple | None
    dataset: Dataset | None
    weights: Mapping[str, Any]
    is_public: bool = False
    training_subjects: frozenset[str] = frozenset()
    run: Path | None = None


def read_stored(path: Path, weights: WeightsName = "last") -> StoredNetwork:
    """Read what is at a path; what a file is, is told from its content, whatever its name.

    Args:
        path: a run folder, one of its checkpoints, an exported network, or a public checkpoint.
        weights: of a run folder: those after its last step, or those of its best validation.

    Raises:
        UserError: there is nothing of that kind, or it is damaged; the message names it.
    """
    if path.is_dir():
        config = read_run_config(path)
        return _from_run(path, path, config, _pick_checkpoint(path, config, weights))
    if not path.exists():
        raise UserError(f"{path}: no such file or folder, {_WANTED}")
    content = read_checkpoint(path)
    kind = content.get("format")
    if kind == EXPORT_FORMAT:
        return _from_export(path, content)
    if kind in _RUN_FORMATS:
        folder = _run_around(path)
        return _from_run(path, folder, read_run_config(folder), content)
    return _from_public(path, content)


def read_run_config(folder: Path) -> Config:
    """The settings of the run in a folder.

    Raises:
        UserError: it is not the folder of a run, or they cannot be read.
    """
    values = old_config(folder)
    if values is None:
        raise UserError(f"{folder}: is not the folder of a run, has no config.json; {_WANTED}")
    return config_from_json(values, folder / "config.json")


def read_run_split(folder: Path) -> Split:
    """The subjects that the run in a folder trains, validates and tests on.

    Raises:
        UserError: they cannot be read.
    """
    path = folder / "split.json"
    values = _read_json(path)
    try:
        return Split(*(tuple(map(str, values[part])) for part in ("train", "validation", "test")))
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged, need the names for train, validation and test: {error!r}") from error


def _pick_checkpoint(folder: Path, config: Config, weights: WeightsName) -> dict[str, Any]:
    checkpoints = folder / "checkpoints"
    if weights == "best":
        best = checkpoints / "best.pt"
        if not best.exists():
            raise UserError(
                f"--weights best: {folder} has no {best.name}, as it has not validated (--validate-every); take "
                "--weights last"
            )
        return read_checkpoint(best)
    content = CheckpointStore(checkpoints, keep=1).newest(lambda message: print(message, flush=True))
    if content is None:
        others = sorted(folder.glob("*.pt"))
        hint = f"; {others[-1]} can be named itself" if others else ""
        raise UserError(f"{folder}: has no weights, there is no checkpoint in {checkpoints}{hint}")
    position = content.get("position", {})
    if position.get("stage", 0) < len(plan_stages(config.training)):
        print(f"{folder}: its training is not at its end; these are the weights after step {position.get('step')}")
    return content


def _run_around(path: Path) -> Path:
    for folder in path.absolute().parents[:2]:
        if old_config(folder) is not None:
            return folder
    raise UserError(
        f"{path}: is a checkpoint out of a run folder, whose config.json says how to build its network; put it back, "
        "or name the run folder, or export it from there to one file that stands alone"
    )


def _from_run(path: Path, folder: Path, config: Config, content: dict[str, Any]) -> StoredNetwork:
    dataset, name = _read_dataset(folder, config), config.network.network
    try:
        # As the run itself evaluates: the averaged weights, if there are any.
        weights = content["weights"] if content.get("averaged") is None else content["averaged"]
        subjects = frozenset(content["progress"].get("training_subjects", ()))
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is a damaged checkpoint: {error!r}") from error
    return StoredNetwork(
        path,
        name,
        config.network.width or NETWORKS[name].width,
        dataset.num_categories,
        config.data.crop,
        dataset,
        weights,
        training_subjects=subjects,
        run=folder,
    )


def _read_dataset(folder: Path, config: Config) -> Dataset:
    path = folder / "dataset.json"
    # Runs of earlier versions lack it; what an edition of BraTS is, is known all the same.
    if not path.exists() and config.data.dataset in DATASETS:
        return DATASETS[config.data.dataset]
    try:
        return Dataset.from_json(_read_json(path))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: is damaged: {error}") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read, need the JSON that the run has written: {error}") from error


def _from_export(path: Path, content: dict[str, Any]) -> StoredNetwork:
    try:
        dataset = Dataset.from_json(content["dataset"])
        x, y, z = map(int, content["crop_size"])
        name, width = str(content["network"]), int(content["width"])
        weights, subjects = content["weights"], frozenset(map(str, content["training_subjects"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is a damaged exported network: {error!r}") from error
    if name not in NETWORKS:
        raise CheckpointError(f"{path}: is an exported {name!r}, need one of {', '.join(NETWORKS)}")
    return StoredNetwork(
        path, name, width, dataset.num_categories, (x, y, z), dataset, weights, training_subjects=subjects
    )


def _from_public(path: Path, content: dict[str, Any]) -> StoredNetwork:
    kind = recognise_public_checkpoint(content)
    if kind is None:
        held = ", ".join(map(str, list(content)[:3])) or "nothing"
        raise CheckpointError(f"{path}: is not known (it holds {held}, ...), {_WANTED}")
    five = DATASETS["brats2015"]
    return StoredNetwork(
        path,
        kind.network_name,
        kind.width,
        kind.num_categories,
        kind.crop_size,
        five if kind.num_categories == five.num_categories else None,
        content,
        is_public=True,
    )
