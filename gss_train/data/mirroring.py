"""Finds files that are mirrored left to right against the others of their subject."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_BINS = 16
_MIN_BRAIN_VOXELS = 1000  # fewer say too little
_MAX_VOXELS = 2_000_000  # more say no more
_MIN_GAIN = 1.1
_MIN_GAIN_NATS = 0.02  # less is within the noise of the smallest brains
_MIN_CONTRAST = 0.5  # standard deviations of the brain
_MIN_ONE_SIDED_SHARE = 0.3
_BRIGHT_IN_TUMOUR = ("FLAIR", "T2")

Bools = npt.NDArray[np.bool_]


def mirrored_scans(scans: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """Names the scans that fit the others better after a flip along the first axis.

    Two scans of one head share more information (of their joint histogram) when they lie the same way round, whatever
    their contrasts. A scan is named when the flip raises what it shares by a tenth at least; a merely symmetric
    brain, or noise, gains nothing by it.

    Args:
        scans: by name, all [D,H,W] with the first axis from right to left, 0 outside the brain.

    Returns:
        The names of the smaller group; of two that differ, the second.
    """
    if len(scans) < 2 or min(np.count_nonzero(voxels) for voxels in scans.values()) < _MIN_BRAIN_VOXELS:
        return []
    first, *others = scans
    bins = {name: _bins(_thinned(voxels)) for name, voxels in scans.items()}
    flipped = _bins(_thinned(scans[first][::-1]))
    against_first = []
    for name in others:
        information = _information(bins[first], bins[name])
        if _information(flipped, bins[name]) > _MIN_GAIN * information + _MIN_GAIN_NATS:
            against_first.append(name)
    if len(against_first) * 2 > len(scans):
        return [name for name in scans if name not in against_first]
    return against_first


def is_label_mirrored(tumour: Bools, scans: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Tells whether an annotation fits the scans better after a flip along the first axis.

    A tumour is brighter in FLAIR and in T2 than the other side of the brain. Where both scans are there both have to
    show the opposite: one alone may be dark in a cyst or a cavity.

    Args:
        tumour: [D,H,W], true in every tumour category.
        scans: by modality, on the same grid; see `mirrored_scans`.
    """
    opposite = tumour[::-1]
    marked, mirror = tumour & ~opposite, opposite & ~tumour
    telling = [scans[modality] for modality in _BRIGHT_IN_TUMOUR if modality in scans]
    one_sided = np.count_nonzero(marked)
    if not telling or one_sided == 0 or one_sided < _MIN_ONE_SIDED_SHARE * np.count_nonzero(tumour):
        return False
    for scan in telling:
        inside = scan[scan != 0]
        spread = float(inside.std(dtype=np.float64)) if inside.size else 0.0
        contrast = float(scan[mirror].mean(dtype=np.float64) - scan[marked].mean(dtype=np.float64))
        if not contrast > _MIN_CONTRAST * spread:
            return False
    return True


def _thinned(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    step = max(1, int(np.ceil((voxels.size / _MAX_VOXELS) ** (1 / 3))))
    return voxels[::step, ::step, ::step]


def _bins(voxels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """0 for the background, and the brain's intensities in classes of about equal size."""
    inside = voxels != 0
    values = voxels[inside]
    bins = np.zeros(voxels.shape, np.uint8)
    if values.size:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS)[1:-1]))
        bins[inside] = 1 + np.searchsorted(edges, values, side="right")
    return bins


def _information(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> float:
    """Mutual information in nats."""
    pairs = first.astype(np.uint16) * _BINS + second
    joint = np.bincount(pairs.ravel(), minlength=_BINS**2).reshape(_BINS, _BINS) / pairs.size
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / independent[filled])).sum())
