"""Networks by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gss_train.models.checks import check_crop_size
from gss_train.models.rfnet import COARSEST_STRIDE, DEFAULT_WIDTH, LEAST_AXIS, RFNet

if TYPE_CHECKING:
    from collections.abc import Callable

    from gss_train.models.interface import SegmentationNetwork


def _build_rfnet(
    num_categories: int, crop_size: tuple[int, int, int], width: int | None, activation_checkpointing: bool
) -> RFNet:
    check_crop_size("crop_size", crop_size, stride=COARSEST_STRIDE, least=LEAST_AXIS)
    return RFNet(
        num_categories,
        width=DEFAULT_WIDTH if width is None else width,
        activation_checkpointing=activation_checkpointing,
    )


NETWORKS: dict[str, Callable[[int, tuple[int, int, int], int | None, bool], SegmentationNetwork]] = {
    "rfnet": _build_rfnet
}


def build_network(
    name: str,
    num_categories: int,
    *,
    crop_size: tuple[int, int, int],
    width: int | None = None,
    activation_checkpointing: bool = False,
) -> SegmentationNetwork:
    """Build a network.

    Args:
        name: one of `NETWORKS`.
        num_categories: number of categories C, background included.
        crop_size: the spatial size in voxels of the crops that it will see.
        width: channels at the finest level; None: as published.
        activation_checkpointing: whether to trade time for memory in the backward pass.

    Returns:
        The network in training mode, freshly initialised from PyTorch's default generator.

    Raises:
        ValueError: if there is no such network, or it cannot have this crop size, width or number of categories.
    """
    if name not in NETWORKS:
        raise ValueError(f"name is {name!r}; the networks are {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name](num_categories, crop_size, width, activation_checkpointing)
