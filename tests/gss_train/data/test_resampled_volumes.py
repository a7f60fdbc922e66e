"""Volumes come to other voxel grids, and probabilities back, without moving, darkening, aliasing or leaking."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to

from gss_train.data.datasets import LABEL
from gss_train.data.grids import Grid
from gss_train.data.resampling import (
    ResamplingError,
    most_probable,
    network_grid,
    place,
    resample_label,
    resample_scan,
    resample_values,
)
from gss_train.data.volumes import Volume

MILLIMETRE = (1.0, 1.0, 1.0)


def turned(degrees: float, spacing: tuple[float, float, float]) -> np.ndarray:
    """An affine whose first two axes are turned, somewhere in the world."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-cosine, sine, 0], [-sine, -cosine, 0], [0, 0, 1]]) * spacing
    affine[:3, 3] = 31.7, -12.9, 205.3
    return affine


FINER = Grid((30, 28, 9), turned(0, (1.0, 1.0, 3.0)))
COARSER = Grid((40, 36, 44), turned(7, (0.5, 0.5, 0.6)))
BOTH = pytest.mark.parametrize("grid", [FINER, COARSER], ids=["finer", "coarser"])


def places(grid: Grid) -> np.ndarray:
    """Where the voxels lie in the world, [3,D,H,W]."""
    indices = np.indices(grid.shape)
    return np.tensordot(grid.affine[:3, :3], indices, 1) + grid.affine[:3, 3, None, None, None]


def middle(grid: Grid) -> np.ndarray:
    return grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3]


def ball(grid: Grid, around: Grid, radius: float = 8) -> np.ndarray:
    return ((places(grid) - middle(around)[:, None, None, None]) ** 2).sum(0) < radius**2


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second)))


@BOTH
def test_another_voxel_size_keeps_the_middle_the_directions_and_the_extent(grid: Grid) -> None:
    other = grid.with_spacing(MILLIMETRE)
    np.testing.assert_allclose(other.spacing, MILLIMETRE)
    np.testing.assert_allclose(middle(other), middle(grid))
    np.testing.assert_allclose(other.affine[:3, :3], grid.affine[:3, :3] / grid.spacing)
    np.testing.assert_allclose(other.shape, np.multiply(grid.shape, grid.spacing), atol=0.5)


def test_the_own_voxel_size_is_the_own_grid() -> None:
    assert FINER.with_spacing((1.0, 1.0, 3.0)) is FINER


@BOTH
def test_tissue_does_not_darken_and_the_background_stays_0(grid: Grid) -> None:
    other = grid.with_spacing(MILLIMETRE)
    found = resample_scan(np.where(ball(grid, grid), 100, 0), grid, other)
    np.testing.assert_allclose(found[found != 0], 100, rtol=1e-5)
    assert dice(found != 0, ball(other, grid)) > 0.9


@BOTH
@pytest.mark.parametrize("degrees", [0, 20])
def test_nothing_moves_in_the_world(grid: Grid, degrees: float) -> None:
    turn = turned(degrees, MILLIMETRE)
    turn[:3, 3] = middle(grid) - turn[:3, :3] @ [7, 7, 7]
    other = Grid((15, 15, 15), turn)
    # What is linear in the place stays what it is.
    raw, wanted = (np.tensordot([2, -3, 1], places(g), 1) + 1000 for g in (grid, other))
    found = resample_scan(raw, grid, other)
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(found[inner], wanted[inner], rtol=1e-3)
    back = resample_values(wanted.astype(np.float32), other, grid, -1.0)
    assert (back != -1).any()
    inside = resample_values(np.ones(other.shape, np.float32), other, grid, 0.0) == 1
    deep = inside & ball(grid, grid, radius=5)
    np.testing.assert_allclose(back[deep], raw[deep], rtol=1e-4)


@BOTH
def test_values_go_back_as_nibabel_brings_them(grid: Grid) -> None:
    other = grid.with_spacing((2.0, 1.5, 1.0))
    values = np.random.default_rng(0).random(other.shape, np.float32)
    expected = resample_from_to(nib.Nifti1Image(values, other.affine), (grid.shape, grid.affine), order=1, cval=7)
    found = resample_values(values, other, grid, 7.0)
    # Up to half a voxel beyond the middle of its last one, a volume has that voxel's value; nibabel ends there.
    inside = expected.get_fdata() <= 1
    assert inside.mean() > 0.5
    np.testing.assert_allclose(found[inside], expected.get_fdata()[inside], atol=1e-4)


@BOTH
def test_part_goes_back_to_its_place(grid: Grid) -> None:
    other = grid.with_spacing(MILLIMETRE)
    whole = np.random.default_rng(0).random(other.shape, np.float32)
    box = tuple(slice(4, n - 2) for n in other.shape)
    part_back = resample_values(np.ascontiguousarray(whole[box]), other.part(box), grid, 7.0)
    whole_back = resample_values(whole, other, grid, 0.0)
    inside = part_back != 7
    assert 0 < np.count_nonzero(inside) < inside.size
    # At its edges the part lacks the neighbours that the whole has.
    assert np.isclose(part_back, whole_back, atol=1e-6)[inside].mean() > 0.6
    assert part_back[0, 0, 0] == 7


@BOTH
def test_mirror_images_stay_mirror_images(grid: Grid) -> None:
    other = grid.with_spacing(MILLIMETRE)
    scan = np.random.default_rng(0).random(grid.shape) * ball(grid, grid)
    flipped = resample_scan(scan[::-1, :, ::-1], grid, other)[::-1, :, ::-1]
    np.testing.assert_allclose(flipped, resample_scan(scan, grid, other), atol=1e-4)


def test_fine_structure_becomes_its_mean_and_no_pattern() -> None:
    grid = Grid((48, 48, 48), turned(0, MILLIMETRE))
    checkers = 1.0 + np.indices(grid.shape).sum(0) % 2
    for spacing in ((4.0, 4.0, 4.0), (2.0, 4.0, 2.0)):
        found = resample_scan(checkers, grid, grid.with_spacing(spacing))
        np.testing.assert_allclose(found, 1.5, atol=1e-6)


def test_a_label_gets_what_most_of_a_voxel_has() -> None:
    grid = Grid((24, 20, 12), turned(0, MILLIMETRE))
    label = np.random.default_rng(0).choice([0, 1, 2, 4], grid.shape, p=[0.4, 0.2, 0.2, 0.2]).astype(np.int16)
    found = resample_label(label, grid, grid.with_spacing((4.0, 4.0, 4.0)))
    assert found.dtype == label.dtype
    for index in np.ndindex(found.shape):
        block = label[tuple(slice(4 * i, 4 * i + 4) for i in index)]
        counts = {value: np.count_nonzero(block == value) for value in (0, 1, 2, 4)}
        assert found[index] == max(counts, key=lambda value: (counts[value], -value))


@pytest.mark.parametrize("degrees", [0, 30])
@pytest.mark.parametrize("spacing", [(4.0, 4.0, 4.0), (1.0, 1.0, 1.0), (0.5, 0.5, 2.0)], ids=str)
def test_a_label_keeps_its_shape_wherever_the_voxels_are(degrees: float, spacing: tuple[float, ...]) -> None:
    grid = Grid((60, 60, 40), turned(0, MILLIMETRE))
    size = np.ceil(np.divide((60, 60, 40), spacing)).astype(int).tolist()
    affine = turned(degrees, spacing)
    affine[:3, 3] = middle(grid) - affine[:3, :3] @ ((np.array(size) - 1) / 2)
    other = Grid(tuple(size), affine)
    label = np.where(ball(grid, grid, 16), 2, 0)
    label[ball(grid, grid, 10)] = 4
    found = resample_label(label, grid, other)
    for least, radius in ((1, 16), (3, 10)):
        assert dice(found > least, ball(other, grid, radius)) > 0.93


def test_an_empty_label_stays_empty_and_one_elsewhere_is_not_found() -> None:
    grid, far = Grid((8, 8, 8), turned(0, MILLIMETRE)), turned(0, MILLIMETRE)
    far[:3, 3] += 500
    assert not resample_label(np.zeros((8, 8, 8), np.uint8), grid, grid.with_spacing((2.0, 2.0, 2.0))).any()
    assert not resample_label(np.ones((8, 8, 8), np.uint8), grid, Grid((8, 8, 8), far)).any()


@BOTH
def test_categories_are_those_of_the_interpolated_probabilities(grid: Grid) -> None:
    other = grid.with_spacing((2.0, 2.0, 2.5))
    generator = np.random.default_rng(0)
    logits = 6 * generator.random((4, *other.shape))
    logits[0] += 20 * ~ball(other, grid, 6)
    probabilities = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
    whole = np.stack([resample_values(p, other, grid, float(c == 0)) for c, p in enumerate(probabilities)])
    assert (whole.argmax(0) != 0).any()
    np.testing.assert_array_equal(most_probable(probabilities, other, grid), whole.argmax(0))


def test_on_the_same_voxels_nothing_is_interpolated() -> None:
    probabilities = np.random.default_rng(0).random((4, 5, 6, 7)).astype(np.float32)
    box = (slice(2, 7), slice(-1, 5), slice(3, 10))
    grid = Grid((12, 5, 9), turned(30, (0.7, 1.3, 2.0)))
    found = most_probable(probabilities, grid.part(box), grid)
    np.testing.assert_array_equal(found[2:7, :5, 3:], probabilities.argmax(0)[:, 1:, :6])
    assert not found[:2].any()
    assert not found[..., :3].any()


def test_results_do_not_depend_on_where_a_patient_lay() -> None:
    scan = np.random.default_rng(0).random(COARSER.shape) * ball(COARSER, COARSER)
    moved = Grid(COARSER.shape, turned(-23, (0.5, 0.5, 0.6)) + np.outer([1, 1, 1, 0], [0, 0, 0, 1234.567]))
    first, second = (resample_scan(scan, grid, grid.with_spacing(MILLIMETRE)) for grid in (COARSER, moved))
    np.testing.assert_array_equal(first, second)


def test_volumes_of_a_subject_are_placed_by_their_affines() -> None:
    flair = Grid((40, 40, 24), turned(0, (1.0, 1.0, 2.0)))
    affine = turned(15, (1.5, 0.8, 1.0))
    affine[:3, 3] = middle(flair) - affine[:3, :3] @ [17, 29.5, 23.5]
    t2 = Grid((35, 60, 48), affine)
    volumes = {
        "FLAIR": Volume(np.where(ball(flair, flair, 16), 100, 0), flair.affine),
        "T2": Volume(np.where(ball(t2, flair, 16), 50, 0), t2.affine),
        LABEL: Volume(np.where(ball(t2, flair, 8), 4, 0), t2.affine),
    }
    grid = network_grid(volumes, (2.0, 2.0, 2.0))
    placed = place(volumes, grid)
    assert {volume.voxels.shape for volume in placed.values()} == {(20, 20, 24)}
    assert dice(placed["FLAIR"].voxels > 0, placed["T2"].voxels > 0) > 0.95
    assert dice(placed[LABEL].voxels == 4, ball(grid, flair, 8)) > 0.9


def test_volumes_on_the_wanted_grid_are_taken_as_they_are() -> None:
    volume = Volume(np.ones(FINER.shape), FINER.affine)
    placed = place({"T1": volume, LABEL: volume}, network_grid({"T1": volume}, None))
    assert placed["T1"] is volume
    assert placed[LABEL] is volume


def test_a_file_with_far_too_small_voxels_is_told_before_it_fills_the_memory() -> None:
    volume = Volume(np.pad(np.ones((20, 20, 20)), 2), turned(0, (0.001, 0.001, 0.001)))
    with pytest.raises(ResamplingError, match="looked at in more than 512"):
        place({"T1": volume, LABEL: volume}, volume.grid.part((slice(0, 1),) * 3).with_spacing(MILLIMETRE))


@pytest.mark.parametrize(("spacing", "problem"), [(100.0, "more than 512"), (0.001, "fewer than any brain")])
def test_a_header_with_a_wrong_voxel_size_is_told(spacing: float, problem: str) -> None:
    volumes = {"T1": Volume(np.pad(np.ones((20, 20, 20)), 2), turned(0, (spacing,) * 3))}
    with pytest.raises(ResamplingError, match=f"{problem}.* does their header give the right voxel size"):
        place(volumes, network_grid(volumes, MILLIMETRE))
