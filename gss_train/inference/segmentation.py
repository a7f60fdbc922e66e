"""Segment whole volumes, larger than what a network sees at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gss_train.inference.windows import Triple, windows
from gss_train.models import SegmentationNetwork


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and afterwards each of its modules back into the mode that it had."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.inference_mode()
def segment_subsets(
    network: SegmentationNetwork, image: Tensor, crop_size: Triple, subsets: Sequence[Sequence[bool]]
) -> Tensor:
    """Segment one volume from several subsets of its modalities.

    Windows of the crop size overlap by half, and their probabilities are averaged uniformly. The encoders run once
    per window, only the fusion once per subset.

    Args:
        network: in evaluation mode.
        image: `[4, D, H, W]`, each axis at least the crop's.
        crop_size: voxels of the window.
        subsets: one flag per modality for each of S subsets.

    Returns:
        Category indices, `[S, D, H, W]` uint8.
    """
    flags = torch.tensor(subsets, dtype=torch.bool, device=image.device)
    total: Tensor | None = None
    for window in windows(image.shape[1:], crop_size):
        features = network.encode(image[:, *window][None])
        for number, subset in enumerate(flags):
            probabilities = torch.softmax(network.fuse(features, subset[None])[0].float(), dim=0)
            if total is None:
                total = torch.zeros(
                    (len(flags), len(probabilities), *image.shape[1:]), dtype=torch.float32, device=image.device
                )
            # The sum will do: dividing a voxel's sums by its number of windows does not change which is largest.
            total[number][:, *window] += probabilities
    assert total is not None
    return torch.stack([probabilities.argmax(dim=0).to(torch.uint8) for probabilities in total])
