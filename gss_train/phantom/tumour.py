"""Simulated gliomas: shape, spread of the oedema and the categories inside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gss_train.common import Triple
from gss_train.phantom.anatomy import Anatomy, largest_component
from gss_train.phantom.grid import BoolVolume, FloatVolume, Grid, bounding_box

BACKGROUND, NECROSIS, OEDEMA, NON_ENHANCING, ENHANCING = range(5)


@dataclass(frozen=True)
class TumourPlan:
    """What is drawn before the anatomy is known.

    Attributes:
        high_grade: HGG with necrosis and an enhancing rim, or LGG, mostly non-enhancing.
        whole_volume: tumour with oedema in ml.
        core_volume: tumour without oedema in ml.
        rim_thickness: mean thickness of the enhancing rim in mm (HGG).
        non_enhancing_share: share of the core that is a non-enhancing sector (HGG).
        enhancing_share: share of the core that enhances in spots (LGG).
        cyst_share: share of the core that is necrotic or cystic (LGG).
    """

    high_grade: bool
    whole_volume: float
    core_volume: float
    rim_thickness: float
    non_enhancing_share: float
    enhancing_share: float
    cyst_share: float

    @property
    def core_radius(self) -> float:
        """Radius in mm of a ball of the core's volume."""
        return float((3 * self.core_volume * 1000 / (4 * np.pi)) ** (1 / 3))


def plan_tumour(rng: np.random.Generator, *, high_grade: bool) -> TumourPlan:
    """Draw volumes and shares; volumes follow BraTS: 20 to 150 ml, about 90 ml on average."""
    whole = float(np.clip(rng.lognormal(np.log(90), 0.38), 25, 150))
    core_share = rng.uniform(0.3, 0.5) if high_grade else rng.uniform(0.4, 0.65)
    return TumourPlan(
        high_grade=high_grade,
        whole_volume=whole,
        core_volume=whole * core_share,
        rim_thickness=rng.uniform(2.8, 5.0),
        non_enhancing_share=rng.uniform(0.1, 0.35),
        enhancing_share=rng.uniform(0.01, 0.06) * rng.integers(2),
        cyst_share=rng.uniform(0.0, 0.12),
    )


def grow_tumour(
    plan: TumourPlan, anatomy: Anatomy, grid: Grid, centre: Triple, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Grow a tumour around `centre`.

    Returns:
        Categories BACKGROUND to ENHANCING, uint8 (x, y, z), non-zero only inside the brain.
    """
    core = _grow_core(plan, anatomy, grid, centre, rng)
    oedema = _spread_oedema(plan, anatomy, grid, core, rng)
    categories = np.zeros(grid.size, dtype=np.uint8)
    categories[oedema] = OEDEMA
    if plan.high_grade:
        _fill_high_grade(categories, core, plan, grid, centre, rng)
    else:
        _fill_low_grade(categories, core, plan, grid, rng)
    return categories


def _grow_core(plan: TumourPlan, anatomy: Anatomy, grid: Grid, centre: Triple, rng: np.random.Generator) -> BoolVolume:
    """Threshold a noise-perturbed ellipsoidal distance at the wanted volume; CSF resists."""
    offset = grid.offset_from(centre)
    stretch = np.exp(rng.normal(0, 0.15, 3)).astype(np.float32)
    distance = np.sqrt(np.einsum("i,ixyz->xyz", stretch**2, offset**2))
    wavelength = 1.6 * plan.core_radius
    lobes = 0.26 * grid.smooth_noise(rng, wavelength) + 0.11 * grid.smooth_noise(rng, wavelength / 3)
    resistance = distance * np.exp(lobes) + plan.core_radius * (anatomy.csf > 0.35)
    resistance[~anatomy.brain] = np.inf
    core = _lowest(resistance, round(plan.core_volume / grid.voxel_volume))
    return largest_component(np.asarray(ndimage.binary_fill_holes(core)) & anatomy.brain)


def _spread_oedema(
    plan: TumourPlan, anatomy: Anatomy, grid: Grid, core: BoolVolume, rng: np.random.Generator
) -> BoolVolume:
    """Let oedema travel from the core, fast along white matter, slowly in grey matter, hardly through CSF."""
    reach = 45.0
    box = bounding_box(core, round(reach / grid.spacing))
    csf, grey, white = anatomy.tissues[(slice(None), *box)]
    speed = (white + 0.15 * grey + 0.01 * csf) * np.exp(0.6 * grid.smooth_noise(rng, 20)[box])
    speed[~anatomy.brain[box] | (csf > 0.5)] = 0
    arrival = _travel_time(core[box], speed, steps=round(1.2 * reach / grid.spacing))
    arrival[core[box]] = np.inf
    wanted = round(plan.whole_volume / grid.voxel_volume) - int(core.sum())
    oedema = np.zeros(grid.size, dtype=bool)
    oedema[box] = _lowest(arrival, max(wanted, 1))
    return oedema


def _travel_time(start: BoolVolume, speed: FloatVolume, steps: int) -> FloatVolume:
    """First arrival, in voxels over speed, by Jacobi iterations of the upwind eikonal scheme; inf if not reached."""
    far = np.float32(1e6)
    slowness = (1 / np.maximum(speed, 1 / far)).astype(np.float32)
    arrival = np.where(start, np.float32(0), far)
    for _ in range(steps):
        padded = np.pad(arrival, 1, constant_values=far)
        x = np.minimum(padded[:-2, 1:-1, 1:-1], padded[2:, 1:-1, 1:-1])
        y = np.minimum(padded[1:-1, :-2, 1:-1], padded[1:-1, 2:, 1:-1])
        z = np.minimum(padded[1:-1, 1:-1, :-2], padded[1:-1, 1:-1, 2:])
        arrival = np.minimum(arrival, _upwind_update(x, y, z, slowness))
    return np.where(arrival < far, arrival, np.float32(np.inf))


def _upwind_update(x: FloatVolume, y: FloatVolume, z: FloatVolume, slowness: FloatVolume) -> FloatVolume:
    """Solve |grad T| = slowness for T from the smaller neighbour on each axis (Rouy and Tourin, 1992)."""
    low, high = np.minimum(x, y), np.maximum(x, y)
    first, middle, last = np.minimum(low, z), np.maximum(low, np.minimum(high, z)), np.maximum(high, z)
    result = first + slowness
    gap = middle - first
    two = (first + middle + np.sqrt(np.maximum(2 * slowness**2 - gap**2, 0))) / 2
    result = np.where(result > middle, two, result)
    mean = (first + middle + last) / 3
    spread = first**2 + middle**2 + last**2 - 3 * mean**2
    three = mean + np.sqrt(np.maximum(slowness**2 - spread, 0) / 3)
    return np.where(result > last, three, result)


def _fill_high_grade(
    categories: NDArray[np.uint8],
    core: BoolVolume,
    plan: TumourPlan,
    grid: Grid,
    centre: Triple,
    rng: np.random.Generator,
) -> None:
    """Necrosis inside an enhancing rim of varying thickness, interrupted by a non-enhancing sector."""
    depth = _depth(core, grid)
    thickness = plan.rim_thickness * np.exp(0.45 * grid.smooth_noise(rng, 26) + 0.15 * grid.smooth_noise(rng, 10))
    categories[core] = np.where(depth < thickness, ENHANCING, NECROSIS)[core]
    direction = rng.standard_normal(3).astype(np.float32)
    direction /= np.linalg.norm(direction)
    along = np.einsum("i,ixyz->xyz", direction, grid.offset_from(centre))
    sector = along / plan.core_radius + 0.6 * grid.smooth_noise(rng, 20)
    categories[_top_share(sector, core, plan.non_enhancing_share)] = NON_ENHANCING


def _fill_low_grade(
    categories: NDArray[np.uint8], core: BoolVolume, plan: TumourPlan, grid: Grid, rng: np.random.Generator
) -> None:
    """A non-enhancing core with a few cysts in its depth and, in some, spots that enhance."""
    depth = _depth(core, grid) / plan.core_radius
    categories[core] = NON_ENHANCING
    categories[_top_share(depth + 0.5 * grid.smooth_noise(rng, 18), core, plan.cyst_share)] = NECROSIS
    categories[_top_share(grid.smooth_noise(rng, 16), core, plan.enhancing_share)] = ENHANCING


def _lowest(values: FloatVolume, count: int) -> BoolVolume:
    """Mask of the `count` lowest finite values."""
    finite = np.isfinite(values)
    count = min(count, int(finite.sum()))
    if count == 0:
        return np.zeros_like(finite)
    highest = np.partition(values[finite], count - 1)[count - 1]
    return np.asarray(finite & (values <= highest))


def _top_share(values: FloatVolume, mask: BoolVolume, share: float) -> BoolVolume:
    """Part of `mask` with the highest values, `share` of its voxels."""
    return _lowest(np.where(mask, -values, np.inf), round(share * int(mask.sum())))


def _depth(mask: BoolVolume, grid: Grid) -> FloatVolume:
    """Distance in mm of the voxels of `mask` from its border, 0 outside."""
    depth = np.zeros(grid.size, dtype=np.float32)
    box = bounding_box(mask, margin=1)
    depth[box] = ndimage.distance_transform_edt(mask[box], sampling=grid.spacing)
    return np.asarray(np.maximum(depth - grid.spacing / 2, 0), dtype=np.float32)
