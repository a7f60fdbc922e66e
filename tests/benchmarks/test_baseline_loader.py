"""The plain loader makes the samples that the public training code makes."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch

from benchmarks.baselines.loader import PlainFiles, change_intensity, crop, flip, plain_sample, rotate

SHAPE, SIZE = (12, 11, 10), (8, 7, 6)


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def rotations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Arguments of every call of SciPy's rotation, which goes on working."""
    calls: list[tuple[Any, ...]] = []
    original = scipy.ndimage.rotate

    def record(volume: np.ndarray, angle: float, axes: tuple[int, int], **options: Any) -> np.ndarray:
        calls.append((volume.shape, angle, axes, options))
        return original(volume, angle, axes, **options)

    monkeypatch.setattr(scipy.ndimage, "rotate", record)
    return calls


def numbered(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Four channels in which each voxel tells its place, and a label that goes with the first."""
    places = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    return np.stack([places, places + 0.25, places + 0.5, places + 0.75], axis=-1), (places % 4).astype(np.uint8)


def test_shapes_types_and_one_hot_labels(tmp_path: Path, generator: np.random.Generator) -> None:
    image, label = numbered(SHAPE)
    files = PlainFiles(tmp_path / "image.npy", tmp_path / "label.npy")
    np.save(files.image, image)
    np.save(files.label, label)
    sample, wanted = plain_sample(files, SIZE, 5, generator)
    assert (sample.shape, sample.dtype) == ((4, *SIZE), torch.float32)
    assert (wanted.shape, wanted.dtype) == ((5, *SIZE), torch.float64)
    assert torch.equal(wanted.sum(0), torch.ones(SIZE, dtype=torch.float64))
    assert set(wanted.unique().tolist()) == {0, 1}
    assert sample.is_contiguous()
    assert wanted.is_contiguous()


def test_image_and_label_go_the_same_way(tmp_path: Path, generator: np.random.Generator) -> None:
    label = generator.integers(0, 4, SHAPE, np.uint8)
    files = PlainFiles(tmp_path / "image.npy", tmp_path / "label.npy")
    np.save(files.image, np.stack([10 * label.astype(np.float32)] * 4, axis=-1))
    np.save(files.label, label)
    for _ in range(10):
        sample, wanted = plain_sample(files, SIZE, 4, generator)
        # 10 times the label, changed by less than 3.2; 0 and -1 of what was outside stay nearest to 0.
        assert torch.equal((sample / 10).round().clamp(min=0), wanted.argmax(0).expand(4, *SIZE).float())


def test_crops_are_boxes_anywhere(generator: np.random.Generator) -> None:
    image, label = numbered((4, 3, 5))
    starts: Counter[tuple[int, ...]] = Counter()
    for _ in range(1200):
        cropped, cropped_label = crop(image, label, (2, 3, 4), generator)
        start = tuple(int(number) for number in np.unravel_index(int(cropped[0, 0, 0, 0]), (4, 3, 5)))
        box = tuple(slice(first, first + size) for first, size in zip(start, (2, 3, 4), strict=True))
        np.testing.assert_array_equal(cropped, image[box])
        np.testing.assert_array_equal(cropped_label, label[box])
        starts[start] += 1
    assert set(starts) == {(x, 0, z) for x in range(3) for z in range(2)}
    assert all(abs(count - 200) < 60 for count in starts.values())


def test_rotations_are_drawn_as_published(generator: np.random.Generator, rotations: list[tuple[Any, ...]]) -> None:
    image, label = numbered((5, 5, 5))
    for _ in range(400):
        rotate(image, label, generator)
    for first in range(0, 2000, 5):
        of_one_sample = rotations[first : first + 5]
        assert len({(angle, axes) for _, angle, axes, _ in of_one_sample}) == 1
        assert [options["cval"] for *_, options in of_one_sample] == [-1, -1, -1, -1, 0]
        for shape, _, _, options in of_one_sample:
            assert shape == (5, 5, 5)
            assert (options["order"], options["reshape"], options["mode"]) == (0, False, "constant")
    assert {angle for _, angle, _, _ in rotations} == set(range(-10, 10))
    assert {frozenset(axes) for _, _, axes, _ in rotations} == {frozenset(pair) for pair in ((0, 1), (1, 2), (0, 2))}


def test_rotations_take_the_nearest_voxel_and_fill_what_was_outside(generator: np.random.Generator) -> None:
    image, label = numbered((9, 9, 9))
    outside = 0
    for _ in range(30):
        turned, turned_label = rotate(image, label + 1, generator)
        filled = turned[..., 0] == -1
        outside += int(filled.sum())
        np.testing.assert_array_equal(turned[~filled], image.reshape(-1, 4)[turned[~filled][:, 0].astype(int)])
        assert (turned[filled] == -1).all()
        np.testing.assert_array_equal(turned_label, np.where(filled, 0, turned[..., 0] % 4 + 1))
    assert outside > 0


def test_intensities_change_by_modality_and_slice(generator: np.random.Generator) -> None:
    ones = np.ones((40, 3, 2, 4), np.float32)
    shift = change_intensity(0 * ones, np.random.default_rng(5))
    both = change_intensity(ones, np.random.default_rng(5))
    for values, low, high in ((shift, -0.1, 0.1), (both - shift, 0.9, 1.1)):
        assert (values == values[:, :1, :1]).all()
        drawn = values[:, 0, 0].ravel()
        assert len(set(drawn.tolist())) == 160
        assert low <= drawn.min() < low + 0.01
        assert high - 0.01 < drawn.max() <= high


def test_each_axis_is_flipped_half_the_time(generator: np.random.Generator) -> None:
    image, label = numbered((2, 2, 2))
    counts: Counter[int] = Counter()
    for _ in range(800):
        flipped, flipped_label = flip(image, label, generator)
        np.testing.assert_array_equal(flipped_label, flipped[..., 0] % 4)
        counts[int(flipped[0, 0, 0, 0])] += 1
    assert set(counts) == set(range(8))
    assert all(abs(count - 100) < 45 for count in counts.values())
