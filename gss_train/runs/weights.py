"""Weights into networks: to train on from, to evaluate, to predict with, to export."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gss_train.common import Triple, UserError, times
from gss_train.config import ComputedPrecision, Config
from gss_train.data import REGIONS, Dataset, Spacing
from gss_train.models import NETWORKS, CheckpointReport, SegmentationNetwork, build_network, load_public_checkpoint
from gss_train.runs.checkpoints import CheckpointError, save_checkpoint
from gss_train.runs.stored import EXPORT_FORMAT, Architecture, StoredNetwork, names_of_weights, read_stored


@dataclass(frozen=True)
class LoadedWeights:
    """What `load_weights` found.

    Attributes:
        public_keys: which keys of a public checkpoint were used; None for weights of this software.
        training_subjects: names of the subjects that the weights were trained on, as far as known.
    """

    public_keys: CheckpointReport | None
    training_subjects: frozenset[str]


def load_weights(network: nn.Module, path: Path, config: Config, dataset: Dataset) -> LoadedWeights:
    """Load the weights that a training starts from.

    Of a run with `--ema`, a run folder stands for the network that the run evaluates, with the averaged weights. A
    checkpoint stands for the training as it was then: its trained weights are taken, as the next stage would.

    Args:
        network: of the run that starts; changed in place.
        path: as for `read_stored`; a checkpoint may lie anywhere.
        config: settings of the run that starts.
        dataset: that it trains on.

    Raises:
        UserError: there is nothing of that kind, it is damaged or does not fit; the message names it.
    """
    needed = Architecture.of_run(config, dataset)
    stored = read_stored(path, averaged=path.is_dir(), assumed=needed)
    return LoadedWeights(_fill(network, stored, needed), stored.training_subjects)


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with the weights that were trained, and what is needed to use it.

    Attributes:
        network: in evaluation mode, on the device asked for.
        network_name: of `gss_train.models.NETWORKS`.
        dataset: what its categories mean, and the values that stand for them in label files.
        crop_size: voxels of the window that slides over a volume, as of the crops that it was trained on.
        origin: the run folder or file that it is from.
        training_subjects: names of the subjects that it was trained on, as far as known.
        width: channels of one modality at the finest level.
        spacing: voxel size in millimetres that scans were brought to; None: that which they had.
        precision: that it computed in when it was trained last; None where that is not known.
    """

    network: SegmentationNetwork
    network_name: str
    dataset: Dataset
    crop_size: Triple
    origin: Path
    training_subjects: frozenset[str]
    width: int
    spacing: Spacing | None = None
    precision: ComputedPrecision | None = None


def load_trained(
    path: Path,
    device: torch.device,
    *,
    weights: str = "last",
    dataset: Dataset | None = None,
    crop_size: Triple | None = None,
) -> TrainedNetwork:
    """Load a trained network: `read_stored`, then `build_trained`, which have the arguments and errors."""
    return build_trained(read_stored(path, weights), device, dataset=dataset, crop_size=crop_size)


def build_trained(
    stored: StoredNetwork, device: torch.device, *, dataset: Dataset | None = None, crop_size: Triple | None = None
) -> TrainedNetwork:
    """Build a network, and give it its weights.

    Args:
        stored: the network.
        device: where it goes.
        dataset: in place of what is stored, whose regions it must have. A public checkpoint of four categories says
            nothing; one of five is of BraTS2015.
        crop_size: in place of what is stored, or the published one; an mmFormer knows only its own.

    Raises:
        UserError: the weights are damaged, or something does not fit; the message names it.
    """
    dataset, crop_size = _pick_dataset(stored, dataset), _pick_crop(stored, crop_size)
    try:
        network = build_network(stored.network_name, stored.num_categories, crop_size=crop_size, width=stored.width)
    except ValueError as error:
        raise UserError(f"{stored.origin}, --crop-size: {error}") from error
    _fill(network, stored, stored)
    return TrainedNetwork(
        network.to(device).eval().requires_grad_(False),
        stored.network_name,
        dataset,
        crop_size,
        stored.origin,
        stored.training_subjects,
        stored.width,
        stored.spacing,
        stored.precision,
    )


def read_different(folder: Path) -> Iterator[tuple[list[str], StoredNetwork]]:
    """All weights of a run folder, those that are the same only once, with all of their names; read one by one.

    Raises:
        UserError: there are none, or they are damaged; the message names the file.
    """
    by_digest: dict[str, list[str]] = {}
    for name in names_of_weights(folder):
        by_digest.setdefault(weights_digest(read_stored(folder, name).weights), []).append(name)
    for names in by_digest.values():
        yield names, read_stored(folder, names[0])


def weights_digest(weights: Mapping[str, Any]) -> str:
    """A fingerprint of weights, by their names, wherever they are."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        if not isinstance(value, Tensor):
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def export_network(trained: TrainedNetwork, path: Path) -> None:
    """Write one file that stands alone: the weights, and what `load_trained` needs to build the network.

    It holds tensors and plain values only, and is safe to load.

    Raises:
        OSError: it cannot be written; whatever stood at `path` still does.
    """
    content = {
        "format": EXPORT_FORMAT,
        "network": trained.network_name,
        "width": trained.width,
        "crop_size": list(trained.crop_size),
        "dataset": trained.dataset.to_json(),
        "spacing": None if trained.spacing is None else list(trained.spacing),
        "precision": trained.precision,
        "training_subjects": sorted(trained.training_subjects),
        "weights": {name: value.cpu() for name, value in trained.network.state_dict().items()},
    }
    save_checkpoint(path, content)


def _pick_dataset(stored: StoredNetwork, dataset: Dataset | None) -> Dataset:
    if dataset is None:
        if stored.dataset is None:
            raise UserError(
                f"--dataset: is missing, {stored.origin} does not say what its {stored.num_categories} categories "
                "mean; need the BraTS edition that it was trained on, such as brats2020"
            )
        return stored.dataset
    if dataset.num_categories != stored.num_categories:
        raise UserError(
            f"--dataset: {dataset.title} has {dataset.num_categories} categories, {stored.origin} has "
            f"{stored.num_categories}"
        )
    if stored.dataset is not None and stored.dataset.regions != dataset.regions:
        raise UserError(
            f"--dataset: {', '.join(REGIONS)} join other categories in {dataset.title} than in "
            f"{stored.dataset.title}, which {stored.origin} was trained on"
        )
    return dataset


def _pick_crop(stored: StoredNetwork, crop_size: Triple | None) -> Triple:
    own = stored.crop_size
    if crop_size is None:
        if own is None:
            raise UserError(f"--crop-size: is missing, {stored.origin} does not say which crops it was trained on")
        return own
    if NETWORKS[stored.network_name].sized and own is not None and crop_size != own:
        raise UserError(
            f"--crop-size: got {times(crop_size)}, need {times(own)}: {stored.origin} has learnt the places in crops "
            "of that size"
        )
    return crop_size


def _fill(network: nn.Module, stored: StoredNetwork, needed: Architecture) -> CheckpointReport | None:
    """Give a network its weights, all of them.

    Args:
        network: changed in place.
        stored: the weights.
        needed: what the network is.

    Returns:
        Of a public checkpoint: which keys were used.

    Raises:
        CheckpointError: they do not fit.
    """
    try:
        if not stored.is_public:
            _load_own(network, stored.weights)
            return None
        return _load_public(network, stored.weights)
    except ValueError as error:
        found, wanted = str(stored), str(needed)
        fault = error if found == wanted else f"it is {found}"
        raise CheckpointError(f"{stored.origin}: does not fit {wanted}: {fault}") from error


def _load_own(network: nn.Module, weights: Any) -> None:
    """Load weights by their names; what does not fit is said in one line, where PyTorch takes many."""
    if not isinstance(weights, Mapping):
        raise ValueError(f"its weights are a {type(weights).__name__}, need a dictionary")  # noqa: TRY004
    expected = network.state_dict()
    for name, value in expected.items():
        found = weights.get(name)
        if not isinstance(found, Tensor):
            raise ValueError(f"it lacks {name}")  # noqa: TRY004
        if found.shape != value.shape:
            raise ValueError(f"{name} has shape {tuple(found.shape)}, need {tuple(value.shape)}")
    unknown = [name for name in weights if name not in expected]
    if unknown:
        raise ValueError(f"it has {unknown[0]}, for which there is no place")
    network.load_state_dict(weights)


def _load_public(network: nn.Module, content: Mapping[str, Any]) -> CheckpointReport:
    report = load_public_checkpoint(network, content)
    if report.missing:
        raise ValueError(f"it lacks {len(report.missing)} weights, such as {report.missing[0]}")
    return report
