"""What run folders and files of weights say of the network that is in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from gss_train.common import Triple, UserError, times
from gss_train.config import Config
from gss_train.data import DATASETS, Dataset
from gss_train.models import NETWORKS, recognise_public_checkpoint
from gss_train.runs.checkpoint_file import CheckpointError, read_checkpoint
from gss_train.runs.checkpoint_store import CheckpointStore
from gss_train.runs.folder import StoredRun, read_run

EXPORT_FORMAT = "gss-export-1"
_RUN_FORMATS = {"gss-checkpoint-1", "gss-checkpoint-2"}
_WANTED = "need a run folder, one of its checkpoints, an exported network, or a checkpoint of RFNet, GSS or mmFormer"

WeightsName = Literal["last", "best"]


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

    def describe(self) -> str:
        """For people; the crop size where the network has learnt it."""
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
    """

    origin: Path
    dataset: Dataset | None
    weights: Mapping[str, Any]
    is_public: bool = False
    training_subjects: frozenset[str] = frozenset()
    run: StoredRun | None = None


def read_stored(
    path: Path, weights: WeightsName = "last", *, averaged: bool = True, assumed: Architecture | None = None
) -> StoredNetwork:
    """Read what is at a path; what a file is, is told from its content, whatever its name.

    Args:
        path: a run folder, one of its checkpoints, a file of `export_network`, or a checkpoint that the authors of
            RFNet, GSS or mmFormer publish.
        weights: of a run folder: those after its last step, or those of its best validation. Files are taken as they
            are.
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


def _pick_checkpoint(run: StoredRun, weights: WeightsName) -> dict[str, Any]:
    folder = run.folder
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
        subjects = frozenset(content["progress"].get("training_subjects", ()))
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is a damaged checkpoint: {error!r}") from error
    dataset = None if run is None else run.dataset
    return StoredNetwork(
        **vars(assumed), origin=path, dataset=dataset, weights=weights, training_subjects=subjects, run=run
    )


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
        name, width, dataset.num_categories, (x, y, z), path, dataset, weights, training_subjects=subjects
    )


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
