"""MRI contrast: tissue and tumour shares become FLAIR, T1ce, T1 and T2 intensities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gss_train.phantom.anatomy import Anatomy
from gss_train.phantom.grid import Grid
from gss_train.phantom.tumour import ENHANCING, NECROSIS, NON_ENHANCING, OEDEMA

SUBSTANCES = ("CSF", "GM", "WM", "NCR", "ED", "NET", "ET", "vessel")

# Mean signal per substance, in the order of SUBSTANCES, relative to healthy white matter in T1. Enhancement shows in
# T1ce alone; in the other three ET lies between the oedema and the non-enhancing core, within their scatter.
SIGNAL: dict[str, tuple[float, ...]] = {
    "FLAIR": (0.14, 0.58, 0.46, 0.62, 0.98, 0.82, 0.88, 0.30),
    "T1ce": (0.27, 0.70, 0.96, 0.34, 0.64, 0.53, 1.62, 1.25),
    "T1": (0.25, 0.68, 1.00, 0.45, 0.63, 0.60, 0.66, 0.45),
    "T2": (1.00, 0.56, 0.38, 0.86, 0.80, 0.74, 0.74, 0.55),
}
# Scanner units of a signal of 1.
SCALE = {"FLAIR": 520.0, "T1ce": 760.0, "T1": 600.0, "T2": 680.0}
# Relative scatter within a substance.
TEXTURE = (0.05, 0.03, 0.02, 0.12, 0.07, 0.09, 0.11, 0.10)
INFILTRATION = 0.85


def render(
    anatomy: Anatomy, categories: NDArray[np.uint8], grid: Grid, rng: np.random.Generator
) -> dict[str, NDArray[np.int16]]:
    """Image a subject.

    Args:
        anatomy: healthy tissue.
        categories: tumour categories, uint8 (x, y, z).
        grid: the subject's grid.
        rng: the subject's random numbers.

    Returns:
        For each modality an int16 volume (x, y, z): at least 1 inside the brain and 0 outside.
    """
    brain = anatomy.brain
    shares = _substance_shares(anatomy, categories, grid, rng)
    scatter_of = np.array(TEXTURE, dtype=np.float32)
    shared_texture = [grid.smooth_noise(rng, 9)[brain] for _ in range(2)]
    images = {}
    for modality, signal in SIGNAL.items():
        mean = (np.array(signal) * (1 + 0.025 * rng.standard_normal(len(SUBSTANCES)))).astype(np.float32)
        texture = np.float32(0.7) * grid.smooth_noise(rng, 7)[brain]
        for field in shared_texture:
            texture += np.float32(rng.normal(0, 0.5)) * field
        clean = np.einsum("s,sv->v", mean, shares) + np.einsum("s,sv->v", mean * scatter_of, shares) * texture
        bias = np.exp(np.clip(0.08 * grid.smooth_noise(rng, 150)[brain], -0.2, 0.2))
        images[modality] = np.zeros(grid.size, dtype=np.int16)
        images[modality][brain] = _digitise(clean * bias, SCALE[modality], rng)
    return images


def _substance_shares(
    anatomy: Anatomy, categories: NDArray[np.uint8], grid: Grid, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Share of each of SUBSTANCES in each brain voxel, float32 (substances, brain voxels)."""
    brain = anatomy.brain
    # Partial volume at the borders of the lesion, and what infiltrates beyond them.
    blur = 0.5 + 0.4 / grid.spacing
    lesion = np.stack(
        [
            ndimage.gaussian_filter((categories == category).astype(np.float32), blur)[brain]
            for category in (NECROSIS, OEDEMA, NON_ENHANCING, ENHANCING)
        ]
    )
    # Oedema permeates tissue and leaves its structure faintly visible.
    lesion[1] *= np.clip(INFILTRATION + 0.08 * grid.smooth_noise(rng, 12)[brain], 0.6, 1)
    tissues = anatomy.tissues[:, brain] * np.clip(1 - lesion.sum(axis=0), 0, 1)
    # Vessels and choroid plexus run in CSF spaces: ridges of a fine random field.
    ridge = np.exp(-((grid.smooth_noise(rng, 14)[brain] / 0.12) ** 2))
    vessel = np.float32(0.45) * tissues[0] * ridge
    tissues[0] -= vessel
    return np.concatenate([tissues, lesion, vessel[None]])


def _digitise(signal: NDArray[np.float32], scale: float, rng: np.random.Generator) -> NDArray[np.int16]:
    """Add Rician noise and a scanner's gain, and round to at least 1."""
    sigma = np.float32(rng.uniform(0.012, 0.025))
    noise = sigma * rng.standard_normal((2, signal.size), dtype=np.float32)
    gain = scale * rng.lognormal(0, 0.18)
    magnitude = gain * np.hypot(signal + noise[0], noise[1])
    return np.asarray(np.clip(np.rint(magnitude), 1, np.iinfo(np.int16).max), dtype=np.int16)
