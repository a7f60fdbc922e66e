"""One simulated subject, from its random numbers to its volumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gss_train.phantom.anatomy import Atlas, push_outwards, random_warp, sample
from gss_train.phantom.contrast import render
from gss_train.phantom.grid import Grid
from gss_train.phantom.tumour import grow_tumour, plan_tumour


@dataclass(frozen=True)
class SimulatedSubject:
    """Volumes of a subject on one grid.

    Attributes:
        images: per modality (FLAIR, T1ce, T1, T2) int16 (x, y, z), 0 outside the brain.
        categories: 0 background, 1 NCR, 2 ED, 3 NET, 4 ET, uint8 (x, y, z).
    """

    images: dict[str, NDArray[np.int16]]
    categories: NDArray[np.uint8]


def simulate_subject(atlas: Atlas, grid: Grid, seed: int, index: int, *, high_grade: bool) -> SimulatedSubject:
    """Simulate subject `index` of the phantom with `seed`; the same arguments give the same volumes."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, index)))
    plan = plan_tumour(rng, high_grade=high_grade)
    warp = random_warp(atlas, grid, rng)
    centre = warp.locate(atlas.tumour_sites[rng.integers(len(atlas.tumour_sites))])
    shift = plan.core_radius * rng.uniform(0.15, 0.32)
    anatomy = sample(atlas, push_outwards(warp, grid, centre, plan.core_radius, shift))
    categories = grow_tumour(plan, anatomy, grid, centre, rng)
    return SimulatedSubject(render(anatomy, categories, grid, rng), categories)
