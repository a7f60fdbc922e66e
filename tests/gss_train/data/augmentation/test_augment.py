from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from gss_train.data import AugmentationSettings, augment
from gss_train.data.augmentation import augment as augmentation
from gss_train.data.augmentation.augment import draw_intensities, draw_motions
from gss_train.data.augmentation.motion import Motion

NOTHING = AugmentationSettings(rotation_degrees=0, scale=0.0, shift=0.0, flip=False)
ROTATION = AugmentationSettings(scale=0.0, shift=0.0, flip=False)
FLIPS = AugmentationSettings(rotation_degrees=0, scale=0.0, shift=0.0)
INTENSITY = AugmentationSettings(rotation_degrees=0, flip=False)
SHAPE = (14, 11, 12)
MOTIONS = [(plane, degrees) for plane in ((0, 1), (1, 2), (0, 2)) for degrees in range(-10, 10)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 1, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> tuple[Tensor, Tensor]:
    image = torch.randn(count, 4, *shape, generator=generator(seed))
    label = torch.randint(1, 5, (count, *shape), generator=generator(seed + 1), dtype=torch.uint8)
    return image, label


def rotated_by_scipy(volume: np.ndarray, plane: tuple[int, int], degrees: int, fill: float, order: int) -> np.ndarray:
    return ndimage.rotate(
        volume, degrees, axes=plane[::-1], reshape=False, order=order, mode="constant", cval=fill, prefilter=False
    )


def force(monkeypatch: pytest.MonkeyPatch, plane: tuple[int, int], degrees: int, flips=(False, False, False)) -> None:
    motion = Motion(plane, degrees, flips)
    monkeypatch.setattr(augmentation, "draw_motions", lambda count, *_: [motion] * count)


@pytest.mark.parametrize(("plane", "degrees"), MOTIONS)
def test_rotation_is_that_of_scipy(monkeypatch: pytest.MonkeyPatch, plane: tuple[int, int], degrees: int) -> None:
    force(monkeypatch, plane, degrees)
    image, label = batch()
    moved_image, moved_label = augment(image, label, generator(), ROTATION)
    expected = [rotated_by_scipy(volume, plane, degrees, -1, order=0) for volume in image[0].numpy()]
    # A source halfway between two voxels may be rounded either way.
    assert np.mean(moved_image[0].numpy() != np.stack(expected)) < 0.01
    expected_label = rotated_by_scipy(label[0].numpy(), plane, degrees, 0, order=0)
    assert np.mean(moved_label[0].numpy() != expected_label) < 0.01
    if degrees:
        assert (moved_label == 0).any()


@pytest.mark.parametrize(("plane", "degrees"), MOTIONS[::7])
def test_linear_interpolation_is_that_of_scipy(
    monkeypatch: pytest.MonkeyPatch, plane: tuple[int, int], degrees: int
) -> None:
    force(monkeypatch, plane, degrees)
    image, label = batch()
    settings = AugmentationSettings(scale=0.0, shift=0.0, flip=False, interpolation="linear")
    moved_image, moved_label = augment(image, label, generator(), settings)
    for volume, moved in zip(image[0].numpy(), moved_image[0].numpy(), strict=True):
        np.testing.assert_allclose(moved, rotated_by_scipy(volume, plane, degrees, -1, order=1), atol=1e-5)
    assert torch.equal(moved_label, augment(image, label, generator(), ROTATION)[1])


def test_flips_come_after_the_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    image, label = batch()
    force(monkeypatch, (0, 2), 7)
    rotated_image, rotated_label = augment(image, label, generator(), ROTATION)
    force(monkeypatch, (0, 2), 7, (True, True, False))
    for interpolation in ("nearest", "linear"):
        settings = AugmentationSettings(scale=0.0, shift=0.0, interpolation=interpolation)
        moved_image, moved_label = augment(image, label, generator(), settings)
        assert torch.equal(moved_label, rotated_label.flip(1, 2))
        if interpolation == "nearest":
            assert torch.equal(moved_image, rotated_image.flip(2, 3))


def test_image_and_label_stay_aligned() -> None:
    _, label = batch(16)
    image = label[:, None].float().expand(-1, 4, -1, -1, -1)
    moved_image, moved_label = augment(image, label, generator(), AugmentationSettings(scale=0.0, shift=0.0))
    inside = moved_label > 0
    for modality in range(4):
        assert torch.equal(moved_image[:, modality][inside], moved_label[inside].float())
        assert (moved_image[:, modality][~inside] == -1).all()
    assert not inside.all()
    assert inside.float().mean() > 0.8


def test_angles_and_planes_are_uniform() -> None:
    motions = draw_motions(12000, generator(), AugmentationSettings())
    counts = Counter((motion.plane, motion.degrees) for motion in motions)
    assert set(counts) == set(MOTIONS)
    # The 99.9 % quantile of the chi-square distribution with 59 degrees of freedom.
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 98.3


def test_each_axis_is_flipped_independently_half_the_time() -> None:
    image, label = batch(1600, (2, 2, 2))
    moved_image, moved_label = augment(image, label, generator(), FLIPS)
    found = torch.zeros(1600, dtype=torch.int64)
    for code in range(8):
        axes = [axis for axis in range(3) if code >> axis & 1]
        as_flipped = (image.flip([2 + axis for axis in axes]) == moved_image).flatten(1).all(dim=1)
        found += as_flipped
        aligned = label.flip([1 + axis for axis in axes]) == moved_label
        assert aligned[as_flipped].all()
        assert abs(int(as_flipped.sum()) - 200) < 55  # 4 standard deviations
    assert (found == 1).all()


def estimate_intensities(settings: AugmentationSettings, count: int) -> tuple[Tensor, Tensor]:
    """Scale and shift [B,4,D] of every slice, from slices of zeros and ones."""
    image, label = batch(count, (6, 1, 2))
    image[..., 0], image[..., 1] = 0, 1
    moved, _ = augment(image, label, generator(), settings)
    shift = moved[..., 0, 0]
    return moved[..., 0, 1] - shift, shift


def test_scale_and_shift_are_uniform_and_drawn_per_modality_and_slice() -> None:
    scale, shift = estimate_intensities(INTENSITY, 200)
    for values, centre in ((scale, 1.0), (shift, 0.0)):
        deviation = values - centre
        assert deviation.abs().max() <= 0.1 + 1e-6
        histogram = torch.histc(deviation, bins=10, min=-0.1, max=0.1) / deviation.numel()
        assert (histogram - 0.1).abs().max() < 0.02
        by_slice = deviation.reshape(-1, 6)
        correlation = torch.corrcoef(by_slice.T) - torch.eye(6)
        assert correlation.abs().max() < 0.15
        by_modality = deviation.transpose(0, 1).reshape(4, -1)
        assert (torch.corrcoef(by_modality) - torch.eye(4)).abs().max() < 0.15
    assert torch.corrcoef(torch.stack([scale.flatten(), shift.flatten()]))[0, 1].abs() < 0.07


def test_scale_and_shift_may_be_drawn_per_modality() -> None:
    settings = AugmentationSettings(rotation_degrees=0, flip=False, intensity_per_slice=False, scale=0.3, shift=0.5)
    scale, shift = estimate_intensities(settings, 100)
    for values in (scale, shift):
        assert (values - values[..., :1]).abs().max() < 1e-6
        assert len(values[..., 0].unique()) > 390
    assert 0.28 < (scale - 1).abs().max() <= 0.3 + 1e-6
    assert 0.47 < shift.abs().max() <= 0.5 + 1e-6


def test_voxels_from_outside_are_varied_in_intensity_too(monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, (1, 2), 9)
    image, label = batch()
    moved_image, moved_label = augment(image, label, generator(5), AugmentationSettings(flip=False))
    scale, shift = draw_intensities(image.shape, generator(5), AugmentationSettings())
    expected = (-scale + shift).expand_as(image)[:, 0][moved_label == 0]
    torch.testing.assert_close(moved_image[:, 0][moved_label == 0], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_nothing_to_vary_changes_nothing_but_the_type(dtype: torch.dtype) -> None:
    image, label = batch(2)
    image = image.to(dtype)
    before = image.clone()
    moved_image, moved_label = augment(image, label, generator(), NOTHING)
    assert moved_image.dtype == torch.float32
    assert moved_label.dtype == torch.uint8
    assert torch.equal(moved_image, image.float())
    assert torch.equal(moved_label, label)
    moved_image.zero_()
    assert torch.equal(image, before)


def test_draws_repeat_with_the_generator_and_differ_between_samples() -> None:
    image, label = batch(1)
    image, label = image.expand(3, -1, -1, -1, -1), label.expand(3, -1, -1, -1)
    first, first_label = augment(image, label, generator(1))
    again, again_label = augment(image, label, generator(1))
    assert torch.equal(first, again)
    assert torch.equal(first_label, again_label)
    assert not torch.equal(first, augment(image, label, generator(2))[0])
    assert not torch.equal(first[0], first[1])


def test_leaving_one_variation_out_does_not_change_the_others() -> None:
    image, label = batch(4)
    _, flipped_label = augment(image, label, generator(), FLIPS)
    without_intensity = AugmentationSettings(rotation_degrees=0, scale=0.0, shift=0.0)
    with_intensity = AugmentationSettings(rotation_degrees=0)
    assert torch.equal(augment(image, label, generator(), without_intensity)[1], flipped_label)
    assert torch.equal(augment(image, label, generator(), with_intensity)[1], flipped_label)


def test_wrong_batches_are_refused() -> None:
    image, label = batch(2)
    with pytest.raises(ValueError, match="image: got"):
        augment(image[0], label, generator())
    with pytest.raises(ValueError, match="image: got"):
        augment(image.long(), label, generator())
    with pytest.raises(ValueError, match="label: got"):
        augment(image, label.long(), generator())
    with pytest.raises(ValueError, match="label: got"):
        augment(image, label[:, 1:], generator())
    with pytest.raises(ValueError, match="label: is on meta"):
        augment(image, label.to("meta"), generator())


@pytest.mark.parametrize(
    "wrong",
    [
        {"rotation_degrees": -1},
        {"rotation_degrees": 90},
        {"interpolation": "cubic"},
        {"scale": 1.0},
        {"scale": -0.1},
        {"shift": -0.1},
        {"shift": float("nan")},
        {"scaling": -0.1},
        {"scaling": 1.0},
        {"scaling": float("nan")},
        {"elastic": -1.0},
        {"elastic": 8.5},
        {"elastic": float("nan")},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AugmentationSettings(**wrong)  # type: ignore[arg-type]
