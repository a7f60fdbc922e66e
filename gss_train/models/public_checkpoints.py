"""Loading the weights that the authors of RFNet, of GSS and of mmFormer publish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gss_train.models.mmformer import MMFormer, mmformer_public_keys
from gss_train.models.rfnet import RFNet, rfnet_public_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

_PARALLEL_PREFIX = "module."


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
    state = checkpoint.get("state_dict", checkpoint)
    values = {key.removeprefix(_PARALLEL_PREFIX): value for key, value in state.items()}
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
    if tuple(_significant(value)) != tuple(_significant(piece)):
        raise ValueError(
            f"checkpoint[{key!r}] has shape {tuple(value.shape)}; the network has room for {tuple(piece.shape)}"
        )
    return value.reshape(piece.shape)


def _significant(tensor: Tensor) -> list[int]:
    return [length for length in tensor.shape if length != 1]
