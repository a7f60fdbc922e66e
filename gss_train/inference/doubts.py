"""Tells scans that a network cannot make sense of: not skull-stripped, not co-registered, not raw intensities."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gss_train.common import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# The box of a brain without anything around it is a third background; scans of a whole head have little of it.
_LEAST_BACKGROUND = 0.05
# The largest skulls hold about 2.1 litres; a head has more than 4.
_MOST_LITRES = 2.5
# Of the smaller brain, within the other. One that was moved by 10 mm has less; one that was scanned in part has all.
_LEAST_OVERLAP = 0.9
# Resampling leaves a few values below 0 at the edges of bright tissue.
_MOST_NEGATIVE = 0.1

Bools = npt.NDArray[np.bool_]


class BackgroundError(UserError):
    """A scan has no background; the message names the file."""


def refuse_without_background(files: Mapping[str, Path], scans: Mapping[str, npt.NDArray[Any]]) -> None:
    """Refuses scans that are hardly anywhere 0: of these, no brain can be found.

    Args:
        files: where the scans come from, by modality.
        scans: by modality, [D,H,W].

    Raises:
        BackgroundError: of the first of them.
    """
    for modality, voxels in scans.items():
        background = 1 - np.count_nonzero(voxels) / voxels.size
        if background < _LEAST_BACKGROUND:
            corners = np.unique(voxels[np.ix_(*((0, -1) for _ in range(3)))])
            constant = f"; its background seems to be {corners[0]:g}" if len(corners) == 1 and corners[0] else ""
            raise BackgroundError(
                f"{files[modality]}: {modality} is 0 in {background:.1%} of its voxels{constant}; scans should be "
                "skull-stripped, with 0 in every voxel outside the brain"
            )


def find_doubts(
    files: Mapping[str, Path], scans: Mapping[str, npt.NDArray[Any]], spacing: tuple[float, float, float]
) -> list[str]:
    """Looks for scans of which the label map will probably be wrong.

    Args:
        files: where the scans come from, by modality.
        scans: by modality, [D,H,W] on one grid and in one orientation.
        spacing: voxel size in millimetres.

    Returns:
        One sentence for each doubt, which begins with the file's name.
    """
    brains = {modality: voxels != 0 for modality, voxels in scans.items()}
    found = [*_heads(brains, math.prod(spacing) / 1e6), *_moved(brains), *_normalised(scans, brains)]
    return [f"{files[modality]}: {modality} {problem}" for modality, problem in found]


def _heads(brains: Mapping[str, Bools], voxel_litres: float) -> Iterator[tuple[str, str]]:
    for modality, brain in brains.items():
        litres = np.count_nonzero(brain) * voxel_litres
        if litres > _MOST_LITRES:
            yield (
                modality,
                f"is other than 0 in {litres:.1f} litres, more than any brain has: it seems not to be skull-stripped, "
                "or its header to give a wrong voxel size; do not trust the label map",
            )


def _moved(brains: Mapping[str, Bools]) -> Iterator[tuple[str, str]]:
    overlaps = {
        (first, second): _overlap(brains[first], brains[second])
        for first, second in itertools.product(brains, repeat=2)
    }
    agreeing = {first: sum(overlaps[first, second] >= _LEAST_OVERLAP for second in brains) for first in brains}
    # What most agree on is held for right, and where there is no majority, the first.
    reference = max(agreeing, key=lambda modality: agreeing[modality])
    for modality in brains:
        overlap = overlaps[modality, reference]
        if overlap < _LEAST_OVERLAP:
            yield (
                modality,
                f"and {reference} have only {overlap:.0%} of their brains in common: it seems not to be co-registered "
                f"with {reference}; do not trust the label map",
            )


def _overlap(first: Bools, second: Bools) -> float:
    """Share of the smaller of two brains that lies in the other."""
    smaller = min(int(np.count_nonzero(first)), int(np.count_nonzero(second)))
    return int(np.count_nonzero(first & second)) / max(1, smaller)


def _normalised(scans: Mapping[str, npt.NDArray[Any]], brains: Mapping[str, Bools]) -> Iterator[tuple[str, str]]:
    for modality, voxels in scans.items():
        share = int(np.count_nonzero(voxels < 0)) / max(1, int(np.count_nonzero(brains[modality])))
        if share > _MOST_NEGATIVE:
            yield (
                modality,
                f"is below 0 in {share:.0%} of its brain: it seems to be normalised already, and should hold the "
                "scanner's intensities; do not trust the label map",
            )
