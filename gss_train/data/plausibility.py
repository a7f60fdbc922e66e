"""Tells scans that a network cannot make sense of: not skull-stripped, or not raw intensities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gss_train.data.grids import Spacing

# The box of a brain without anything around it is half background; scans of a whole head, air and all, have a tenth.
_LEAST_BACKGROUND = 0.25
# Brains hold 1 to 2 litres; a head has more than 4.
_MOST_LITRES = 2.5
# Resampling leaves a few values below 0 at the edges of bright tissue.
_MOST_NEGATIVE = 0.1

Scans = Mapping[str, npt.NDArray[Any]]
Finding = tuple[str, str, str]
"""Modality, problem, remedy."""


def scans_without_background(scans: Scans) -> Iterator[Finding]:
    """Finds scans that are hardly anywhere 0: of these, no brain can be found.

    Args:
        scans: by modality, [D,H,W].
    """
    for modality, voxels in scans.items():
        background = 1 - np.count_nonzero(voxels) / voxels.size
        if background < _LEAST_BACKGROUND:
            corners = np.unique(voxels[np.ix_(*((0, -1) for _ in range(3)))])
            constant = f"; its background seems to be {corners[0]:g}" if len(corners) == 1 and corners[0] else ""
            yield (
                modality,
                f"{modality} is 0 in {background:.1%} of its voxels{constant}",
                "skull-strip it, with 0 in every voxel outside the brain and the scanner's intensities inside",
            )


def implausible_scans(scans: Scans, spacing: Spacing) -> Iterator[Finding]:
    """Finds scans that a network will probably get wrong.

    Args:
        scans: by modality, [D,H,W].
        spacing: voxel size in millimetres.
    """
    for modality, voxels in scans.items():
        count = int(np.count_nonzero(voxels))
        litres = count * math.prod(spacing) / 1e6
        negative = int(np.count_nonzero(voxels < 0)) / max(1, count)
        if litres > _MOST_LITRES:
            yield (
                modality,
                f"{modality} is other than 0 in {litres:.1f} litres, more than any brain has",
                "skull-strip it; or mend its header, if that gives a wrong voxel size; do not trust what a network "
                "makes of it",
            )
        if negative > _MOST_NEGATIVE:
            yield (
                modality,
                f"{modality} is below 0 in {negative:.0%} of its brain: it seems to be normalised already",
                "export it again, with the scanner's intensities; do not trust what a network makes of it",
            )
