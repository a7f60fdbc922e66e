"""The checkpoints that the authors of RFNet, of GSS and of mmFormer publish: recognised, and loaded into a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gss_train.common import Triple, to_triple
from gss_train.models.mmformer import COARSEST_STRIDE, MMFormer, mmformer_public_keys
from gss_train.models.rfnet import RFNet, rfnet_public_keys

# The very first convolution tells RFNet, where it is part of a unit, from mmFormer, where it stands alone.
_FIRST_WEIGHTS = {"rfnet": "flair_encoder.e1_c1.conv.weight", "mmformer": "flair_encoder.e1_c1.weight"}
_LAST_BIAS = "decoder_fuse.seg_layer.bias"
_POSITIONS = "flair_pos"
_PUBLISHED_RFNET_CROP = (80, 80, 80)


@dataclass(frozen=True)
class PublicCheckpoint:
    """What the keys and shapes of a public checkpoint tell.

    Attributes:
        network_name: "rfnet", also for checkpoints of GSS, which trains RFNet, or "mmformer".
        num_categories: number of categories C, background included.
        width: channels of one modality at the finest level.
        crop_size: voxels of the crops that it was trained on: as published, or as mmFormer's learnt positions tell;
            None where these are no cube.
    """

    network_name: str
    num_categories: int
    width: int
    crop_size: Triple | None


@dataclass(frozen=True)
class CheckpointReport:
    """What became of a public checkpoint.

    Attributes:
        used: keys of the checkpoint whose values are now in the network.
        unused: keys of the checkpoint that the network has no place for.
        missing: keys that the network wants and the checkpoint lacks; these parameters keep their values.
    """

    used: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]


def recognise_public_checkpoint(checkpoint: Mapping[Any, Any]) -> PublicCheckpoint | None:
    """Tell the network from a checkpoint, as `load_public_checkpoint` takes it; None if it is none of the public ones.

    That all weights are there, and of the right shapes, is for `load_public_checkpoint` to find out.
    """
    shapes = {key: tuple(value.shape) for key, value in _weights(checkpoint).items() if isinstance(value, Tensor)}
    categories = shapes.get(_LAST_BIAS, ())
    for name, key in _FIRST_WEIGHTS.items():
        if len(shapes.get(key, ())) > 1 and len(categories) == 1:
            crop = _PUBLISHED_RFNET_CROP if name == "rfnet" else _cube_of(shapes.get(_POSITIONS, ()))
            return PublicCheckpoint(name, categories[0], shapes[key][0], crop)
    return None


def load_public_checkpoint(network: nn.Module, checkpoint: Mapping[str, Any]) -> CheckpointReport:
    """Load public weights into a network.

    Args:
        network: an `RFNet` or an `MMFormer`, changed in place.
        checkpoint: `{"epoch", "state_dict", "optim_dict"}` as the authors save it, or a bare state dict; keys may
            carry the prefix `module.` of a network saved under `DataParallel`.

    Returns:
        The keys used, unused and missing, without that prefix, sorted.

    Raises:
        ValueError: if the network is none with public weights, or a value is no tensor or has a wrong shape, as with
            another number of categories. The network is then unchanged.
    """
    values = _weights(checkpoint)
    sources = _public_keys(network)
    parameters = dict(network.named_parameters())
    updates = [
        (piece, _checked(values[key], piece, key))
        for name, keys in sources.items()
        for key, piece in zip(keys, parameters[name].detach().chunk(len(keys)), strict=True)
        if key in values
    ]
    with torch.no_grad():
        for piece, value in updates:
            piece.copy_(value)
    wanted = {key for keys in sources.values() for key in keys}
    return CheckpointReport(
        used=tuple(sorted(wanted & values.keys())),
        unused=tuple(sorted(values.keys() - wanted)),
        missing=tuple(sorted(wanted - values.keys())),
    )


def _weights(checkpoint: Mapping[Any, Any]) -> dict[str, Any]:
    """The state dict in a checkpoint, by the keys of a network that was not saved under `DataParallel`."""
    state = checkpoint.get("state_dict", checkpoint)
    items = state.items() if isinstance(state, Mapping) else ()
    return {key.removeprefix("module."): value for key, value in items if isinstance(key, str)}


def _public_keys(network: nn.Module) -> dict[str, tuple[str, ...]]:
    if isinstance(network, RFNet):
        return rfnet_public_keys(network)
    if isinstance(network, MMFormer):
        return mmformer_public_keys(network)
    raise ValueError(
        f"network is a {type(network).__name__}; public weights can be loaded into an RFNet or an MMFormer"
    )


def _checked(value: object, piece: Tensor, key: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"checkpoint[{key!r}] is a {type(value).__name__}; it must be a tensor")  # noqa: TRY004
    # Public weights of 1x1x1 convolutions carry axes of length 1 that the network's own may lack.
    if _longer_axes(value) != _longer_axes(piece):
        raise ValueError(
            f"checkpoint[{key!r}] has shape {tuple(value.shape)}; the network has room for {tuple(piece.shape)}"
        )
    return value.reshape(piece.shape)


def _longer_axes(tensor: Tensor) -> list[int]:
    return [length for length in tensor.shape if length != 1]


def _cube_of(positions: tuple[int, ...]) -> Triple | None:
    """The crop whose coarsest level has as many voxels as there are positions, `[1, voxels, token channels]`."""
    if len(positions) != 3:
        return None
    edge = round(positions[1] ** (1 / 3))
    return to_triple(edge * COARSEST_STRIDE) if edge**3 == positions[1] else None
