"""Which network a public checkpoint is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gss_train.models.mmformer import COARSEST_STRIDE

_PARALLEL_PREFIX = "module."
# The very first convolution, of which RFNet's has a unit of its own, and mmFormer's has none.
_FIRST_WEIGHTS = {"rfnet": "flair_encoder.e1_c1.conv.weight", "mmformer": "flair_encoder.e1_c1.weight"}
_LAST_BIAS = "decoder_fuse.seg_layer.bias"
_POSITIONS = "flair_pos"
_PUBLISHED_RFNET_CROP = (80, 80, 80)


@dataclass(frozen=True)
class PublicKind:
    """What the keys and shapes of a public checkpoint tell.

    Attributes:
        network_name: "rfnet", whose keys GSS has too, or "mmformer".
        num_categories: number of categories C, background included.
        width: channels of one modality at the finest level.
        crop_size: voxels of the crops that it was trained on: as published, or as mmFormer's learnt positions tell;
            None where these are no cube.
    """

    network_name: str
    num_categories: int
    width: int
    crop_size: tuple[int, int, int] | None


def recognise_public_checkpoint(checkpoint: Mapping[Any, Any]) -> PublicKind | None:
    """Tell the network from a checkpoint, as `load_public_checkpoint` takes it; None if it is none of the public ones.

    That all weights are there, and of the right shapes, is for `load_public_checkpoint` to find out.
    """
    state = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, Mapping):
        return None
    shapes = {
        key.removeprefix(_PARALLEL_PREFIX): tuple(value.shape)
        for key, value in state.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    categories = shapes.get(_LAST_BIAS, ())
    for name, key in _FIRST_WEIGHTS.items():
        if len(shapes.get(key, ())) > 1 and len(categories) == 1:
            crop = _PUBLISHED_RFNET_CROP if name == "rfnet" else _cube_of(shapes.get(_POSITIONS, ()))
            return PublicKind(name, categories[0], shapes[key][0], crop)
    return None


def _cube_of(positions: tuple[int, ...]) -> tuple[int, int, int] | None:
    """The crop with so many places, `[1, places, tokens]`, at the coarsest level."""
    if len(positions) != 3:
        return None
    edge = round(positions[1] ** (1 / 3))
    side = edge * COARSEST_STRIDE
    return (side, side, side) if edge**3 == positions[1] else None
