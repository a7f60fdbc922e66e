"""Finds scans that are one scan with two sets of intensities."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

# Real scans of two modalities have up to 0.89, what was scaled, windowed or stored in eight bits at least 0.997.
_LEAST_CORRELATION = 0.99
_LEAST_VOXELS = 500
_MAX_VOXELS = 200_000  # more say no more

Voxels = npt.NDArray[Any]


def copied_scans(scans: Mapping[str, Voxels]) -> list[tuple[str, str]]:
    """Finds the pairs of scans whose intensities have the same order, or the opposite one.

    Copies that were scaled, normalised, inverted, or changed by any other function of the intensity are found; those
    that were resampled, smoothed or corrected for a bias field are not.

    Args:
        scans: by name, all [D,H,W] on one grid, 0 outside the brain.
    """
    thinned = {name: _thinned(voxels) for name, voxels in scans.items()}
    pairs = itertools.combinations(thinned, 2)
    return [pair for pair in pairs if _rank_correlation(*(thinned[name] for name in pair)) > _LEAST_CORRELATION]


def _thinned(voxels: Voxels) -> Voxels:
    step = max(1, int(np.ceil((voxels.size / _MAX_VOXELS) ** (1 / 3))))
    return voxels[::step, ::step, ::step]


def _rank_correlation(first: Voxels, second: Voxels) -> float:
    """Spearman's, without its sign, of the voxels that are other than 0 in both scans; 0 where they are too few."""
    common = (first != 0) & (second != 0)
    if np.count_nonzero(common) < _LEAST_VOXELS:
        return 0.0
    return abs(float(np.corrcoef(_ranks(first[common]), _ranks(second[common]))[0, 1]))


def _ranks(values: Voxels) -> npt.NDArray[np.float64]:
    """Equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: npt.NDArray[np.float64] = (np.cumsum(counts) - counts / 2)[places]
    return ranks
