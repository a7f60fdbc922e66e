"""Loading the weights that the authors of RFNet and of GSS publish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gss_train.models.rfnet import NUM_LEVELS, RFNet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

_PARALLEL_PREFIX = "module."
_ENCODERS = ("flair_encoder", "t1ce_encoder", "t1_encoder", "t2_encoder")
_ENCODER_UNITS = {"enter": "c1", "first": "c2", "second": "c3"}
_DECODER_UNITS = {"enter": "c1.conv", "merge": "c2.conv", "leave": "out.conv"}
_HEAD_UNITS = {
    "squeeze.convolution": "embedding_layer.0.conv",
    "mix.convolution": "embedding_layer.1.conv",
    "expand.convolution": "embedding_layer.2.conv",
    "reduce.convolution": "prm_layer.0.conv",
    "classify": "prm_layer.1",
}
_FUSION_UNITS = {
    "squeeze_regions": ("region_fusion.fusion_layer.0.conv",),
    "squeeze_shortcut": ("short_cut.0.conv",),
    "mix.convolution": ("region_fusion.fusion_layer.1.conv", "short_cut.1.conv"),
    "reduce.convolution": ("region_fusion.fusion_layer.2.conv", "short_cut.2.conv"),
}
_ATTENTION_UNITS = {"hidden": "0", "output": "2"}


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
        network: an `RFNet`, changed in place.
        checkpoint: `{"epoch", "state_dict", "optim_dict"}` as the authors save it, or a bare state dict; keys may
            carry the prefix `module.` of a network saved under `DataParallel`.

    Returns:
        The keys used, unused and missing, without that prefix, sorted.

    Raises:
        ValueError: if the network is none with public weights, or a value is no tensor or has a wrong shape, as with
            another number of categories. The network is then unchanged.
    """
    if not isinstance(network, RFNet):
        raise ValueError(f"network is a {type(network).__name__}; public weights can be loaded into an RFNet")  # noqa: TRY004
    state = checkpoint.get("state_dict", checkpoint)
    values = {key.removeprefix(_PARALLEL_PREFIX): value for key, value in state.items()}
    sources = rfnet_public_keys(network)
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


def rfnet_public_keys(network: RFNet) -> dict[str, tuple[str, ...]]:
    """The public keys behind each parameter of an RFNet.

    The values of several keys lie one after the other on the parameter's first axis: the four encoders' in a grouped
    convolution, the regions' in the attention.
    """
    return {
        f"{unit}.{kind}": tuple(f"{source}.{kind}" for source in sources)
        for unit, sources in _rfnet_units(network.num_categories)
        for kind in ("weight", "bias")
    }


def _rfnet_units(num_categories: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    for level in range(NUM_LEVELS):
        number = level + 1
        for unit, public in _ENCODER_UNITS.items():
            yield (
                f"encoder.{level}.{unit}.convolution",
                tuple(f"{encoder}.e{number}_{public}.conv" for encoder in _ENCODERS),
            )
        for unit, public in _HEAD_UNITS.items():
            yield f"fusion_decoder.heads.{level}.{unit}", (f"decoder_fuse.prm_generator{number}.{public}",)
        for unit, paths in _FUSION_UNITS.items():
            yield (
                f"fusion_decoder.fusions.{level}.{unit}",
                tuple(f"decoder_fuse.RFM{number}.{path}" for path in paths),
            )
        for unit, public in _ATTENTION_UNITS.items():
            yield (
                f"fusion_decoder.fusions.{level}.attention.{unit}",
                tuple(
                    f"decoder_fuse.RFM{number}.modal_fusion.{region}.weight_layer.{public}"
                    for region in range(num_categories)
                ),
            )
    for decoder, source in (("fusion_decoder", "decoder_fuse"), ("separate_decoder", "decoder_sep")):
        yield f"{decoder}.classify", (f"{source}.seg_layer",)
        for level in range(NUM_LEVELS - 1):
            for unit, public in _DECODER_UNITS.items():
                yield f"{decoder}.levels.{level}.{unit}.convolution", (f"{source}.d{level + 1}_{public}",)


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
