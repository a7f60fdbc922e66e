"""Tells scans that a network cannot make sense of: not skull-stripped, not co-registered, not raw intensities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# The box of a brain without anything around it is a third background; scans of a whole head have little of it.
_LEAST_BACKGROUND = 0.05
# The largest skulls hold about 2.1 litres; a head has more than 4.
_MOST_LITRES = 2.5
# Of the smaller brain, within the other. One that was moved by 10 mm has less; one that was scanned in part has all.
_LEAST_OVERLAP = 0.9
# Resampling leaves a few values below 0 at the edges of bright tissue.
_MOST_NEGATIVE = 0.1

Scans = Mapping[str, npt.NDArray[Any]]
Bools = npt.NDArray[np.bool_]


def scans_without_background(files: Mapping[str, Path], scans: Scans) -> list[str]:
    """Looks for scans that are hardly anywhere 0: of these, no brain can be found.

    Args:
        files: where the scans come from, by modality.
        scans: by modality, [D,H,W].

    Returns:
        One sentence for each, which begins with the file's name.
    """
    found = []
    for modality, voxels in scans.items():
        background = 1 - np.count_nonzero(voxels) / voxels.size
        if background < _LEAST_BACKGROUND:
            corners = np.unique(voxels[np.ix_(*((0, -1) for _ in range(3)))])
            constant = f"; its background seems to be {corners[0]:g}" if len(corners) == 1 and corners[0] else ""
            found.append(
                f"{files[modality]}: {modality} is 0 in {background:.1%} of its voxels{constant}; scans should be "
                "skull-stripped, with 0 in every voxel outside the brain"
            )
    return found


def implausible_scans(files: Mapping[str, Path], scans: Scans, spacing: tuple[float, float, float]) -> list[str]:
    """Looks for scans of which the label map will probably be wrong.

    Args:
        files: where the scans come from, by modality.
        scans: by modality, [D,H,W] on one grid and in one orientation.
        spacing: voxel size in millimetres.

    Returns:
        One sentence for each doubt, which begins with the file's name.
    """
    brains = {modality: voxels != 0 for modality, voxels in scans.items()}
    reference = _reference(brains)
    found = []
    for modality, brain in brains.items():
        voxels = int(np.count_nonzero(brain))
        litres, overlap = voxels * math.prod(spacing) / 1e6, _overlap(brain, brains[reference])
        negative = int(np.count_nonzero(scans[modality] < 0)) / max(1, voxels)
        start = f"{files[modality]}: {modality}"
        if litres > _MOST_LITRES:
            found.append(
                f"{start} is other than 0 in {litres:.1f} litres, more than any brain has: it seems not to be "
                "skull-stripped, or its header to give a wrong voxel size"
            )
        if overlap < _LEAST_OVERLAP:
            found.append(
                f"{start} and {reference} have only {overlap:.0%} of their brains in common: it seems not to be "
                f"co-registered with {reference}"
            )
        if negative > _MOST_NEGATIVE:
            found.append(
                f"{start} is below 0 in {negative:.0%} of its brain: it seems to be normalised already, and should "
                "hold the scanner's intensities"
            )
    return [f"{doubt}; do not trust the label map" for doubt in found]


def _reference(brains: Mapping[str, Bools]) -> str:
    """The scan whose brain most others agree on, and where there is no majority, the first."""
    agreeing = {
        modality: sum(_overlap(brain, other) >= _LEAST_OVERLAP for other in brains.values())
        for modality, brain in brains.items()
    }
    return max(agreeing, key=lambda modality: agreeing[modality])


def _overlap(first: Bools, second: Bools) -> float:
    """Share of the smaller of two brains that lies in the other."""
    smaller = min(int(np.count_nonzero(first)), int(np.count_nonzero(second)))
    return int(np.count_nonzero(first & second)) / max(1, smaller)
