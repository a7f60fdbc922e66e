"""Segment whole volumes, larger than what a network sees at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gss_train.config import ComputedPrecision
from gss_train.data import Box
from gss_train.inference.precision import computing
from gss_train.inference.windows import SlidingWindow
from gss_train.models import Features, SegmentationNetwork

Progress = Callable[[int, int], None]
OnWindow = Callable[[Box, Features], None]


class Member(NamedTuple):
    """A network of an ensemble, and how it is used.

    Attributes:
        network: in evaluation mode.
        window: that slides over a volume.
        precision: that it computes in; its device has it.
    """

    network: SegmentationNetwork
    window: SlidingWindow
    precision: ComputedPrecision = "float32"


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
    network: SegmentationNetwork,
    image: Tensor,
    window: SlidingWindow,
    subsets: Sequence[Sequence[bool]],
    progress: Progress | None = None,
    on_window: OnWindow | None = None,
) -> Tensor:
    """Segment one volume from several subsets of its modalities.

    The encoders run once per window, only the fusion once per subset. Sums of probabilities are kept for as many planes
    of the first axis as a window has, however long that axis is.

    Args:
        network: in evaluation mode.
        image: `[4, D, H, W]`, each axis at least the window's.
        window: that slides over it.
        subsets: one flag per modality for each of S subsets.
        progress: called with the number of windows done and that of all.
        on_window: called with the box of each window and what the encoders made of it, not flipped.

    Returns:
        Category indices, `[S, D, H, W]` uint8.
    """
    labels = torch.empty((len(subsets), *image.shape[1:]), dtype=torch.uint8, device=image.device)
    # The sums will do: dividing a voxel's by its windows' weights does not change which is largest.
    for planes, sums in _sums_by_plane(network, image, window, subsets, progress, on_window):
        for subset, probabilities in enumerate(sums):
            labels[subset, planes] = probabilities.argmax(dim=0).to(torch.uint8)
    return labels


@torch.inference_mode()
def subset_probabilities(
    network: SegmentationNetwork,
    image: Tensor,
    window: SlidingWindow,
    subsets: Sequence[Sequence[bool]],
    progress: Progress | None = None,
    on_window: OnWindow | None = None,
) -> Tensor:
    """The probabilities of one volume's categories from several subsets of its modalities.

    Arguments as of `segment_subsets`, whose categories are the most probable ones.

    Returns:
        Float32 `[S, C, D, H, W]` on the CPU; they sum to 1 in each voxel.
    """
    probabilities: Tensor | None = None
    for planes, sums in _sums_by_plane(network, image, window, subsets, progress, on_window):
        if probabilities is None:
            probabilities = torch.empty((*sums.shape[:2], *image.shape[1:]), dtype=torch.float32)
        # A voxel's probabilities sum to the weights of its windows, once for each flip.
        probabilities[:, :, planes] = (sums / sums.sum(dim=1, keepdim=True)).cpu()
    assert probabilities is not None
    return probabilities


@torch.inference_mode()
def mean_probabilities(
    members: Sequence[Member],
    image: Tensor,
    subset: Sequence[bool],
    progress: Progress | None = None,
) -> Tensor:
    """The probabilities of one volume's categories, averaged over the networks of an ensemble.

    Args:
        members: one at least, all of the same C categories.
        image: `[4, D, H, W]`, each axis at least the largest window's.
        subset: one flag per modality.
        progress: called with the number of windows done and that of all.

    Returns:
        Float32 `[C, D, H, W]`; they sum to 1 in each voxel.
    """
    total: Tensor | None = None
    counts = [number_of_windows(image.shape[1:], member.window) for member in members]
    for number, (network, window, precision) in enumerate(members):
        report = None if progress is None else _after(progress, sum(counts[:number]), sum(counts))
        with computing(precision, image.device):
            for planes, (sums,) in _sums_by_plane(network, image, window, [subset], report):
                if total is None:
                    total = torch.zeros((len(sums), *image.shape[1:]), dtype=torch.float32, device=image.device)
                # A voxel's probabilities sum to the weights of its windows, once for each flip.
                total[:, planes] += sums / (sums.sum(dim=0) * len(members))
    if total is None:
        raise ValueError("members: got none, need one network or more")
    return total


def number_of_windows(shape: Sequence[int], window: SlidingWindow) -> int:
    """How many windows cover a volume of three lengths."""
    return sum(len(boxes) for _, boxes in window.rows(shape))


def _after(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)


def _sums_by_plane(
    network: SegmentationNetwork,
    image: Tensor,
    window: SlidingWindow,
    subsets: Sequence[Sequence[bool]],
    progress: Progress | None,
    on_window: OnWindow | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Weighted sums of probabilities `[S, C, planes, H, W]`, of some planes of the first axis after the other.

    A sum is valid until the next one is asked for.
    """
    length, depth = image.shape[1], window.crop_size[0]
    flags = torch.tensor(subsets, dtype=torch.bool, device=image.device)
    weights = window.weights().to(image.device)
    rows = list(window.rows(image.shape[1:]))
    total, done = sum(len(boxes) for _, boxes in rows), 0
    sums: Tensor | None = None
    for number, (start, boxes) in enumerate(rows):
        for box in boxes:
            for subset, probabilities in _probabilities(network, image, box, window, flags, on_window):
                if sums is None:
                    shape = (len(flags), len(probabilities), depth, *image.shape[2:])
                    sums = torch.zeros(shape, dtype=torch.float32, device=image.device)
                sums[subset][:, :, *box[1:]] += weights * probabilities
            done += 1
            if progress is not None:
                progress(done, total)
        assert sums is not None
        following = rows[number + 1][0] if number + 1 < len(rows) else length
        finished = following - start
        yield slice(start, following), sums[:, :, :finished]
        for subset_sums in sums:
            # What later windows add to moves to the front.
            subset_sums[:, : depth - finished] = subset_sums[:, finished:].clone()
            subset_sums[:, depth - finished :] = 0


def _probabilities(
    network: SegmentationNetwork,
    image: Tensor,
    box: Box,
    window: SlidingWindow,
    flags: Tensor,
    on_window: OnWindow | None,
) -> Iterator[tuple[int, Tensor]]:
    """Numbers of subsets with probabilities `[C, d, h, w]` of one window from each, once for every flip."""
    crop = image[:, *box][None]
    for axes in window.flipped_axes:
        features = network.encode(crop.flip(axes))
        if on_window is not None and not axes:
            on_window(box, features)
        for number, subset in enumerate(flags):
            probabilities = torch.softmax(network.fuse(features, subset[None])[0].float(), dim=0)
            yield number, probabilities.flip(axes)
