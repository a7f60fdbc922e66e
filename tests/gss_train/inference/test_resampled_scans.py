"""Scans come to another voxel size and probabilities back, without moving, darkening or leaking."""

from __future__ import annotations

import numpy as np
import pytest

from gss_train.common.errors import UserError
from gss_train.inference.resampling import Resampling

FINE = Resampling((30, 28, 9), (1.0, 1.0, 3.0), (1.0, 1.0, 1.0))
COARSE = Resampling((40, 36, 44), (0.5, 0.5, 0.6), (1.0, 1.0, 1.0))
BOTH = pytest.mark.parametrize("resampling", [FINE, COARSE], ids=["finer", "coarser"])


def places(shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Millimetres from the centre of a grid, [3,D,H,W]."""
    axes = [(np.arange(n) - (n - 1) / 2) * length for n, length in zip(shape, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def ball(shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    return (places(shape, spacing) ** 2).sum(0) < 8**2


@BOTH
def test_covers_the_same_extent(resampling: Resampling) -> None:
    extents = [np.multiply(resampling.raw_shape, resampling.raw_spacing), np.multiply(resampling.shape, 1.0)]
    np.testing.assert_allclose(*extents, atol=0.5)


@BOTH
def test_tissue_does_not_darken_and_the_background_stays_0(resampling: Resampling) -> None:
    raw = ball(resampling.raw_shape, resampling.raw_spacing)
    found = resampling.scan(np.where(raw, 100, 0))
    np.testing.assert_allclose(found[found != 0], 100, rtol=1e-5)
    expected = ball(resampling.shape, resampling.spacing)
    overlap = 2 * np.count_nonzero((found != 0) & expected) / (np.count_nonzero(found) + np.count_nonzero(expected))
    assert overlap > 0.9


@BOTH
def test_nothing_moves(resampling: Resampling) -> None:
    raw, other = (
        places(shape, spacing).T @ (2, -3, 1) + 100
        for shape, spacing in (
            (resampling.raw_shape, resampling.raw_spacing),
            (resampling.shape, resampling.spacing),
        )
    )
    inner = (slice(3, -3),) * 3
    np.testing.assert_allclose(resampling.scan(raw.T)[inner], other.T[inner], rtol=1e-4)
    back = resampling.back(other.T.astype(np.float32), (0, 0, 0), 0.0)
    np.testing.assert_allclose(back[inner], raw.T[inner], rtol=1e-4)


@BOTH
def test_part_goes_back_to_its_place(resampling: Resampling) -> None:
    whole = np.random.default_rng(0).random(resampling.shape, np.float32)
    box = tuple(slice(4, n - 2) for n in resampling.shape)
    whole_back = resampling.back(whole, (0, 0, 0), 0.0)
    part_back = resampling.back(np.ascontiguousarray(whole[box]), (4, 4, 4), 7.0)
    inside = part_back != 7
    assert 0 < np.count_nonzero(inside) < inside.size
    same = np.isclose(part_back, whole_back, atol=1e-6)
    # At its edges the part lacks the neighbours that the whole has.
    assert same[inside].mean() > 0.6
    corner = resampling.back(np.ascontiguousarray(whole[box]), (4, 4, 4), 7.0)[0, 0, 0]
    assert corner == 7


@BOTH
def test_mirror_images_stay_mirror_images(resampling: Resampling) -> None:
    scan = np.random.default_rng(0).random(resampling.raw_shape) * ball(resampling.raw_shape, resampling.raw_spacing)
    flipped = resampling.scan(scan[::-1, :, ::-1])[::-1, :, ::-1]
    np.testing.assert_allclose(flipped, resampling.scan(scan), atol=1e-4)


@pytest.mark.parametrize(("spacing", "problem"), [(100.0, "more than 512"), (0.001, "0 voxels of brain")])
def test_a_header_with_a_wrong_voxel_size_is_told(spacing: float, problem: str) -> None:
    scan = np.pad(np.ones((20, 20, 20)), 2)
    with pytest.raises(UserError, match=f"{problem}.* does their header give the right voxel size"):
        Resampling((24, 24, 24), (spacing,) * 3, (1.0, 1.0, 1.0)).scan(scan)
