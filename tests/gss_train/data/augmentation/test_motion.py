"""Scaling and elastic deformation, the augmentation's options."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.interpolate import BSpline
from torch import Tensor

from gss_train.data import AugmentationSettings, augment
from gss_train.data.augmentation import augment as augmentation, motion as motion_module
from gss_train.data.augmentation.motion import Motion, control_nodes, round_to_fixed_point, source_coordinates
from gss_train.data.augmentation.settings import MAX_ELASTIC

NOTHING = AugmentationSettings(rotation_degrees=0, scale=0.0, shift=0.0, flip=False)
SHAPE = (14, 11, 12)
OPTIONS = [{"scaling": 0.2}, {"elastic": 6.0}, {"scaling": 0.2, "elastic": 6.0}]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 1, shape: tuple[int, int, int] = SHAPE) -> tuple[Tensor, Tensor]:
    image = torch.randn(count, 4, *shape, generator=generator())
    label = torch.randint(1, 5, (count, *shape), generator=generator(1), dtype=torch.uint8)
    return image, label


def forced(
    monkeypatch: pytest.MonkeyPatch, motion: Motion, image: Tensor, label: Tensor, **settings: object
) -> tuple[Tensor, Tensor]:
    monkeypatch.setattr(augmentation, "draw_motions", lambda count, *_: [motion] * count)
    return augment(image, label, generator(), AugmentationSettings(scale=0.0, shift=0.0, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("factors", [(0.71, 0.71, 0.71), (1.23, 1.23, 1.23), (0.9, 1.1, 1.25)])
@pytest.mark.parametrize(("plane", "degrees"), [((0, 1), 0), ((0, 2), 9), ((1, 2), -6)])
@pytest.mark.parametrize(("interpolation", "order"), [("nearest", 0), ("linear", 1)])
def test_scaling_and_rotation_are_one_affine_transform(
    monkeypatch: pytest.MonkeyPatch,
    plane: tuple[int, int],
    degrees: int,
    factors: tuple[float, float, float],
    interpolation: str,
    order: int,
) -> None:
    image, label = batch()
    motion = Motion(plane, degrees, (False, False, False), factors)
    moved_image, moved_label = forced(monkeypatch, motion, image, label, interpolation=interpolation)
    matrix = np.eye(3)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix[np.ix_(plane, plane)] = [[cosine, sine], [-sine, cosine]]
    matrix = matrix / factors
    centre = (np.array(SHAPE) - 1) / 2
    transform = {"matrix": matrix, "offset": centre - matrix @ centre, "mode": "constant"}
    for volume, moved in zip(image[0].numpy(), moved_image[0].numpy(), strict=True):
        expected = ndimage.affine_transform(volume, order=order, cval=-1, **transform)
        assert np.mean(abs(moved - expected) > 1e-5) < 0.01
    expected_label = ndimage.affine_transform(label[0].numpy(), order=0, cval=0, **transform)
    assert np.mean(moved_label[0].numpy() != expected_label) < 0.01


def spline_field(nodes: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Cubic B-spline [3,D,H,W] with control points [3,nodes,nodes,nodes] every 20 voxels, by SciPy."""
    for axis, length in enumerate(shape):
        knots = np.arange(-3, nodes.shape[1 + axis] + 1) * 20.0
        spline = BSpline(knots, np.moveaxis(nodes, 1 + axis, 0), k=3)
        nodes = np.moveaxis(spline(np.arange(length)), 0, 1 + axis)
    return nodes


@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True)])
def test_elastic_deformation_is_a_cubic_spline_before_rotation_and_scaling(
    monkeypatch: pytest.MonkeyPatch, flips: tuple[bool, bool, bool]
) -> None:
    shape = (30, 21, 44)
    # Smooth images, on which the rounding of the spline to 1/4096 voxel shows no more than it should.
    image = torch.from_numpy(ndimage.gaussian_filter(batch(1, shape)[0].numpy(), (0, 0, 2, 2, 2)))
    label = batch(1, shape)[1]
    nodes = torch.round((torch.rand(3, *control_nodes(shape), generator=generator()) * 12 - 6).double() * 4096) / 4096
    motion = Motion((0, 2), 8, flips, (1.1, 0.95, 1.2), nodes)
    moved_image, moved_label = forced(monkeypatch, motion, image, label, interpolation="linear", fill=0.0)
    places = np.indices(shape) + spline_field(nodes.numpy(), shape)
    centre = ((np.array(shape) - 1) / 2)[:, None, None, None]
    cosine, sine = np.cos(np.radians(8)), np.sin(np.radians(8))
    turn = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    sources = np.einsum("ij,jxyz->ixyz", turn / (1.1, 0.95, 1.2), places - centre) + centre
    axes = [axis for axis in range(3) if flips[axis]]
    expected = ndimage.map_coordinates(image[0, 0].numpy(), sources, order=1, cval=0)
    difference = abs(moved_image[0, 0].numpy() - np.flip(expected, axes))
    # Voxels on the very border may fall to either side of it.
    assert np.mean(difference > 2e-3) < 0.0005
    assert (moved_label == 0).any()
    expected_label = ndimage.map_coordinates(label[0].numpy(), sources, order=0, cval=0)
    assert np.mean(moved_label[0].numpy() != np.flip(expected_label, axes)) < 0.01


def test_control_points_that_move_alike_move_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    image, label = batch(1, (25, 11, 12))
    nodes = torch.tensor([3.0, 0.0, -2.0], dtype=torch.float64).view(3, 1, 1, 1).expand(3, *control_nodes((25, 11, 12)))
    moved_image, moved_label = forced(monkeypatch, Motion((0, 1), 0, (False,) * 3, displacement=nodes), image, label)
    assert torch.equal(moved_image[:, :, :-3, :, 2:], image[:, :, 3:, :, :-2])
    assert torch.equal(moved_label[:, :-3, :, 2:], label[:, 3:, :, :-2])
    assert (moved_image[:, :, -3:] == -1).all()
    assert (moved_label[:, :, :, :2] == 0).all()


def test_elastic_displacements_are_exact_and_so_do_not_depend_on_the_order_of_sums() -> None:
    """Every product is a multiple of 2^-48, and fits 53 bits: integers give the same displacements."""
    shape = (41, 22, 30)
    drawn = torch.rand(3, *control_nodes(shape), generator=generator(), dtype=torch.float64) * 16 - 8
    nodes = round_to_fixed_point(drawn)
    weights = [
        motion_module._spline_weights(torch.arange(length).double(), count)
        for length, count in zip(shape, control_nodes(shape), strict=True)
    ]
    whole = [(values * 4096).numpy().astype(np.int64) for values in (nodes, *weights)]
    for weight in whole[1:]:
        assert (weight.sum(axis=1) == 4096).all()
        assert (weight >= 0).all()
    expected = np.einsum("nabc,xa,yb,zc->nxyz", *whole)
    assert abs(expected).max() < 2**53
    positions = [
        torch.arange(length, dtype=torch.float64).view([-1 if axis == other else 1 for other in range(3)])
        for axis, length in enumerate(shape)
    ]
    moved = motion_module._displaced(positions, shape, nodes)
    for axis in range(3):
        assert np.array_equal(moved[axis].numpy(), positions[axis].numpy() + expected[axis] * 2.0**-48)


def test_the_strongest_elastic_deformation_does_not_fold() -> None:
    shape = (60, 60, 60)
    signs = torch.randint(2, (3, *control_nodes(shape)), generator=generator(), dtype=torch.float64) * 2 - 1
    motion = Motion((0, 1), 0, (False, False, False), displacement=MAX_ELASTIC * signs)
    coordinates = source_coordinates(shape, motion, torch.device("cpu"))
    jacobian = np.stack([np.stack(np.gradient(axis.numpy())) for axis in coordinates])
    determinant = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)))
    assert determinant.min() > 0
    assert abs(determinant - 1).max() > 0.3


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("options", OPTIONS)
def test_image_and_label_stay_aligned_under_scaling_and_elastic_deformation(
    options: dict[str, float], dtype: torch.dtype
) -> None:
    label = batch(8, (26, 30, 24))[1]
    image = label[:, None].to(dtype).expand(-1, 4, -1, -1, -1)
    moved_image, moved_label = augment(image, label, generator(), AugmentationSettings(scale=0.0, shift=0.0, **options))
    assert set(moved_label.unique().tolist()) <= {0, 1, 2, 3, 4}
    inside = moved_label > 0
    for modality in range(4):
        assert torch.equal(moved_image[:, modality][inside], moved_label[inside].float())
        assert (moved_image[:, modality][~inside] == -1).all()
    assert inside.float().mean() > 0.6


@pytest.mark.parametrize("options", OPTIONS)
def test_options_repeat_with_the_seed_and_leave_the_other_draws_alone(options: dict[str, float]) -> None:
    image, label = torch.ones(3, 4, *SHAPE), batch(3)[1]
    settings = AugmentationSettings(**options)
    published, _ = augment(image, label, generator(4))
    first, first_label = augment(image, label, generator(4), settings)
    again, again_label = augment(image, label, generator(4), settings)
    assert torch.equal(first, again)
    assert torch.equal(first_label, again_label)
    assert not torch.equal(first_label, augment(image, label, generator(5), settings)[1])
    # Where the image is 1 everywhere, what is inside shows the intensities alone.
    inside = published.amax(dim=(3, 4)) == first.amax(dim=(3, 4))
    assert inside.float().mean() > 0.9


def test_factors_of_scaling_are_uniform() -> None:
    shape, count = (1, 1, 201), 600
    ramp = torch.arange(-100.0, 101.0).expand(count, 1, *shape)
    settings = replace(NOTHING, scaling=0.25, interpolation="linear", fill=0.0)
    moved, _ = augment(ramp, torch.ones(count, *shape, dtype=torch.uint8), generator(), settings)
    factors = 50 / moved[:, 0, 0, 0, 150]
    assert factors.min() >= 0.75 - 1e-5
    assert factors.max() <= 1.25 + 1e-5
    histogram = torch.histc(factors, bins=5, min=0.75, max=1.25)
    assert (histogram - count / 5).abs().max() < 40  # 4 standard deviations


def factors_of(count: int, settings: AugmentationSettings) -> np.ndarray:
    """By which samples grow along each axis, [count,3]."""
    length, middle = 21, 10
    places = torch.stack(torch.meshgrid(*[torch.arange(length) - float(middle)] * 3, indexing="ij"))
    image = torch.cat([places, places[:1]])[None].expand(count, -1, -1, -1, -1)
    moved, _ = augment(image, torch.ones(count, *places.shape[1:], dtype=torch.uint8), generator(), settings)
    at = [middle] * 3
    return np.stack(
        [5 / moved[(slice(None), axis, *at[:axis], middle + 5, *at[axis + 1 :])].numpy() for axis in range(3)], axis=1
    )


def test_axes_are_scaled_alike_or_each_by_itself() -> None:
    settings = replace(NOTHING, scaling=0.1, interpolation="linear", fill=0.0)
    alike = factors_of(50, settings)
    assert np.ptp(alike, axis=1).max() < 1e-5
    apart = factors_of(400, replace(settings, scaling_per_axis=True))
    assert apart.min() >= 0.9 - 1e-5
    assert apart.max() <= 1.1 + 1e-5
    # Five standard deviations of a correlation of independent numbers.
    assert abs(np.corrcoef(apart, rowvar=False) - np.eye(3)).max() < 5 / 400**0.5
    assert apart.mean(axis=0) == pytest.approx([1, 1, 1], abs=5 * 0.1 / 3**0.5 / 400**0.5)


def test_displacements_differ_between_samples_and_reach_what_is_asked() -> None:
    shape = (40, 40, 40)
    places = torch.stack(torch.meshgrid(*[torch.arange(40.0)] * 3, indexing="ij"))
    image = torch.cat([places, places[:1]])[None].expand(12, -1, -1, -1, -1)
    settings = replace(NOTHING, elastic=5.0, fill=float("nan"))
    moved, _ = augment(image, torch.ones(12, *shape, dtype=torch.uint8), generator(), settings)
    displacement = (moved - image)[:, :3]
    inside = ~displacement.isnan()
    assert inside.float().mean() > 0.7
    assert 2 < displacement[inside].abs().max() <= 5
    assert abs(float(displacement[inside].mean())) < 0.5
    assert len({tuple(sample[:, 20, 20, 20].tolist()) for sample in displacement}) > 6
