"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gss_train.common import check_size
from gss_train.models import mmformer, rfnet, robustseg, uhved
from gss_train.models.interface import SegmentationNetwork


@dataclass(frozen=True)
class NetworkKind:
    """How to build a network.

    Attributes:
        build: its class.
        width: channels of one modality at the finest level, as published.
        stride: of its coarsest level; every axis of a crop must be a multiple of it.
        least: fewest voxels of an axis of a crop.
        sized: whether it is built for one crop size.
        has_optional_separate_decoder: whether the network's own prediction of every modality was added here, and can be
            left out.
    """

    build: Callable[..., SegmentationNetwork]
    width: int
    stride: int
    least: int
    sized: bool = False
    has_optional_separate_decoder: bool = False


NETWORKS = {
    "rfnet": NetworkKind(rfnet.RFNet, rfnet.DEFAULT_WIDTH, rfnet.COARSEST_STRIDE, rfnet.LEAST_AXIS),
    "mmformer": NetworkKind(
        mmformer.MMFormer, mmformer.DEFAULT_WIDTH, mmformer.COARSEST_STRIDE, mmformer.LEAST_AXIS, sized=True
    ),
    "robustseg": NetworkKind(
        robustseg.RobustSeg,
        robustseg.DEFAULT_WIDTH,
        robustseg.COARSEST_STRIDE,
        robustseg.LEAST_AXIS,
        has_optional_separate_decoder=True,
    ),
    "uhved": NetworkKind(
        uhved.UHVED,
        uhved.DEFAULT_WIDTH,
        uhved.COARSEST_STRIDE,
        uhved.LEAST_AXIS,
        has_optional_separate_decoder=True,
    ),
}


def build_network(
    name: str,
    num_categories: int,
    *,
    crop_size: int | Sequence[int],
    width: int | None = None,
    activation_checkpointing: bool = False,
    separate_decoder: bool = True,
) -> SegmentationNetwork:
    """Build a network.

    Args:
        name: one of `NETWORKS`.
        num_categories: number of categories C, background included.
        crop_size: voxels of the crops that it will see along each axis, one number or three.
        width: channels of one modality at the finest level; None: as published.
        activation_checkpointing: whether to trade time for memory in the backward pass.
        separate_decoder: whether every modality has a prediction of its own, which GSS needs; RobustSeg and U-HVED were
            published without, RFNet and mmFormer always have it.

    Returns:
        The network in training mode, freshly initialised from PyTorch's default generator.

    Raises:
        ValueError: if there is no such network, or it cannot have this crop size, width or number of categories, or
            cannot do without its separate decoder.
    """
    if name not in NETWORKS:
        raise ValueError(f"name is {name!r}; the networks are {', '.join(sorted(NETWORKS))}")
    kind = NETWORKS[name]
    crop = check_size("crop_size", crop_size, stride=kind.stride, least=kind.least)
    options: dict[str, Any] = {"width": kind.width if width is None else width}
    if kind.sized:
        options["crop_size"] = crop
    if kind.has_optional_separate_decoder:
        options["separate_decoder"] = separate_decoder
    elif not separate_decoder:
        raise ValueError(f"separate_decoder is False; {name} was published with it and cannot do without")
    return kind.build(num_categories, activation_checkpointing=activation_checkpointing, **options)
