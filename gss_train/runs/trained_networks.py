"""Trained networks: from a run, a public checkpoint or one exported file, ready to be used."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gss_train.common import Triple, UserError, open_replacing
from gss_train.data import REGIONS, Dataset
from gss_train.models import NETWORKS, SegmentationNetwork, build_network, load_public_checkpoint
from gss_train.runs.checkpoint_file import CheckpointError
from gss_train.runs.stored_networks import EXPORT_FORMAT, StoredNetwork, WeightsName, read_stored


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with the weights that were trained, and what is needed to use it.

    Attributes:
        network: in evaluation mode, on the device asked for.
        network_name: of `gss_train.models.registry.NETWORKS`.
        dataset: what its categories mean, and the values that stand for them in label files.
        crop_size: voxels of the window that slides over a volume, as of the crops that it was trained on.
        origin: the run folder or file that it is from.
        training_subjects: names of the subjects that it was trained on, as far as known.
        width: channels of one modality at the finest level.
    """

    network: SegmentationNetwork
    network_name: str
    dataset: Dataset
    crop_size: Triple
    origin: Path
    training_subjects: frozenset[str]
    width: int


def load_trained(
    path: Path,
    device: torch.device,
    *,
    weights: WeightsName = "last",
    dataset: Dataset | None = None,
    crop_size: Triple | None = None,
) -> TrainedNetwork:
    """Load a trained network.

    What a file is, is told from its content, whatever its name.

    Args:
        path: a run folder, one of its checkpoints, a file of `export_network`, or a checkpoint that the authors of
            RFNet, GSS or mmFormer publish.
        device: where it goes.
        weights: of a run folder: those after the last step, which the run itself evaluates (the averaged ones with
            `--ema`), or those of its best validation. Files are taken as they are.
        dataset: in place of what the run or file says, whose regions it must have. A public checkpoint of four
            categories says nothing; one of five is of BraTS2015.
        crop_size: in place of that of the run or file, or the published one; an mmFormer knows only its own.

    Raises:
        UserError: there is nothing of that kind, it is damaged or does not fit; the message names it.
    """
    return build_trained(read_stored(path, weights), device, dataset=dataset, crop_size=crop_size)


def build_trained(
    stored: StoredNetwork, device: torch.device, *, dataset: Dataset | None = None, crop_size: Triple | None = None
) -> TrainedNetwork:
    """Build the network of what `read_stored` gave; arguments and errors as of `load_trained`."""
    dataset, crop_size = _pick_dataset(stored, dataset), _pick_crop(stored, crop_size)
    try:
        network = build_network(stored.network_name, stored.num_categories, crop_size=crop_size, width=stored.width)
    except ValueError as error:
        raise UserError(f"{stored.origin}, --crop-size: {error}") from error
    _fill(network, stored)
    return TrainedNetwork(
        network.to(device).eval().requires_grad_(False),
        stored.network_name,
        dataset,
        crop_size,
        stored.origin,
        stored.training_subjects,
        stored.width,
    )


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
        "training_subjects": sorted(trained.training_subjects),
        "weights": {name: value.cpu() for name, value in trained.network.state_dict().items()},
    }
    # Not straight to the disk: PyTorch's writer hides the error of a full one behind its own.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with open_replacing(path) as file:
        file.write(buffer.getbuffer())


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
    if crop_size is None:
        if stored.crop_size is None:
            raise UserError(f"--crop-size: is missing, {stored.origin} does not say which crops it was trained on")
        return stored.crop_size
    own = stored.crop_size
    if NETWORKS[stored.network_name].sized and own is not None and crop_size != own:
        raise UserError(
            f"--crop-size: got {_shown(crop_size)}, need {_shown(own)}: {stored.origin} has learnt the places in crops "
            "of that size"
        )
    return crop_size


def _fill(network: SegmentationNetwork, stored: StoredNetwork) -> None:
    """Give the network its weights, all of them.

    Raises:
        CheckpointError: they do not fit.
    """
    if not stored.is_public:
        fault = _fault(network.state_dict(), stored.weights)
        if fault is not None:
            raise CheckpointError(f"{stored.origin}: does not fit {_described(stored)}: {fault}")
        network.load_state_dict(stored.weights)
        return
    try:
        report = load_public_checkpoint(network, stored.weights)
    except ValueError as error:
        raise CheckpointError(f"{stored.origin}: does not fit {_described(stored)}: {error}") from error
    if report.missing:
        raise CheckpointError(
            f"{stored.origin}: lacks {len(report.missing)} weights of {_described(stored)}, such as {report.missing[0]}"
        )


def _fault(expected: Mapping[str, Tensor], weights: Any) -> str | None:
    """What is wrong with weights, in one line; PyTorch takes many."""
    if not isinstance(weights, Mapping):
        return f"its weights are a {type(weights).__name__}, need a dictionary"
    for name, value in expected.items():
        found = weights.get(name)
        if not isinstance(found, Tensor):
            return f"it lacks {name}"
        if found.shape != value.shape:
            return f"{name} has shape {tuple(found.shape)}, need {tuple(value.shape)}"
    unknown = [name for name in weights if name not in expected]
    return f"it has {unknown[0]}, for which there is no place" if unknown else None


def _described(stored: StoredNetwork) -> str:
    return f"{stored.network_name} of width {stored.width} and {stored.num_categories} categories"


def _shown(crop_size: Triple) -> str:
    return "x".join(str(length) for length in crop_size)
