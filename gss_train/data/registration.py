"""Tells which files of a subject do not lie where its others lie: mirrored, moved, or another subject's."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gss_train.data.edges import Edges, agreement, edges_of_scan, overlap
from gss_train.data.grids import Spacing

# With edges; fewer say too little of a scan, and of a tumour.
_LEAST_BLOCKS = 1000
_LEAST_TUMOUR_BLOCKS = 100
_LEAST_OVERLAP = 0.5
_MOVES = (-2, -1, 1, 2)
# In the middle between real subjects as they are and what was planted in them; docs/training.md has the rates.
_LEAST_LEAD = 1.18
_LEAST_LEAD_OVER_BEST = 0.97
# FLAIR shows every tumour's border, T2 most of them.
_SHOWS_TUMOUR = ("FLAIR", "T2")

Misplacement = Literal["mirrored", "elsewhere"]


def edges_of_scans(scans: Mapping[str, npt.NDArray[Any]], spacing: Spacing) -> dict[str, Edges]:
    """Finds the edges of each scan that has enough of them to be compared.

    Args:
        scans: by name, all [D,H,W] on one grid with the first axis from right to left, 0 outside the brain.
        spacing: voxel size in millimetres.

    Returns:
        By name; without the scans of too large voxels or too small a brain.
    """
    edges = {name: edges_of_scan(voxels, spacing) for name, voxels in scans.items()}
    return {name: found for name, found in edges.items() if found.count >= _LEAST_BLOCKS}


def misplaced_scans(edges: Mapping[str, Edges]) -> dict[str, Misplacement]:
    """Finds the scans that do not lie where the others lie.

    Returns:
        By name, those outside the largest group of scans that fit each other; of two that differ, the second.
        "mirrored" fits the group after a flip along the first axis.
    """
    places: dict[tuple[str, str], Misplacement | None] = {}
    for first, second in itertools.combinations(edges, 2):
        places[first, second] = places[second, first] = _misplacement(edges[second], [edges[first]])
    group = _largest_group(list(edges), places)
    return {
        name: "mirrored" if any(places[name, other] == "mirrored" for other in group) else "elsewhere"
        for name in edges
        if name not in group
    }


def misplaced_label(border: Edges, edges: Mapping[str, Edges]) -> Misplacement | None:
    """Tells whether an annotation does not lie where the tumour of the scans lies; nothing is said without FLAIR.

    Args:
        border: from `edges_of_label`.
        edges: of the scans on the same grid, by modality.
    """
    if _SHOWS_TUMOUR[0] not in edges or border.count < _LEAST_TUMOUR_BLOCKS:
        return None
    return _misplacement(border, [edges[modality] for modality in _SHOWS_TUMOUR if modality in edges])


def _misplacement(edges: Edges, others: Sequence[Edges]) -> Misplacement | None:
    if _fits(edges, others):
        return None
    return "mirrored" if _fits(edges.mirrored(), others) else "elsewhere"


def _fits(edges: Edges, others: Sequence[Edges]) -> bool:
    if any(overlap(edges, other) < _LEAST_OVERLAP for other in others):
        return False
    lead, lead_over_best = leads(edges, others)
    return lead > _LEAST_LEAD and lead_over_best > _LEAST_LEAD_OVER_BEST


def leads(edges: Edges, others: Sequence[Edges]) -> tuple[float, float]:
    """Compares how well a file fits others with how well it would elsewhere: a few millimetres aside, or mirrored.

    The edges of one head lose most of their agreement on the way; those of two heads have none to lose, and those of a
    head that was moved gain some.

    Returns:
        Agreement where the file lies, as a multiple of the mean and of the highest elsewhere.
    """
    here = agreement(edges, others)
    elsewhere = [agreement(edges.mirrored(), others)]
    for axis, blocks in itertools.product(range(3), _MOVES):
        elsewhere.append(agreement(edges.moved(axis, blocks), [other.moved(axis, -blocks) for other in others]))
    return here / float(np.mean(elsewhere)), here / max(elsewhere)


def _largest_group(names: Sequence[str], places: Mapping[tuple[str, str], Misplacement | None]) -> set[str]:
    """The most scans of which each fits another one; of two such groups, that of the first scan."""
    groups: list[set[str]] = []
    for name in names:
        joined = [group for group in groups if any(places[name, other] is None for other in group)]
        groups = [group for group in groups if group not in joined] + [{name}.union(*joined)]
    return max(groups, key=lambda group: (len(group), names[0] in group), default=set())
