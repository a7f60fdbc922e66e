"""The published augmentation, for whole batches on the device that trains: rotation, intensity, flips."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# Pairs of spatial axes that span the plane of a rotation.
_PLANES = ((0, 1), (1, 2), (0, 2))


@dataclass(frozen=True)
class AugmentationSettings:
    """What is varied and how far; the defaults are those of RFNet's published training.

    Attributes:
        rotation_degrees: r; the angle is a whole number of degrees from -r to r - 1. 0 leaves rotation out.
        interpolation: of the rotated image; the label always takes its nearest voxel.
        fill: image value of voxels that were outside before the rotation; their label is 0.
        scale: s; intensities are multiplied by a number from 1 - s to 1 + s.
        shift: t; after that, a number from -t to t is added.
        intensity_per_slice: draw scale and shift for each modality and slice of the first axis, as published, rather
            than for each modality.
        flip: turn each axis around with probability 1/2.
    """

    rotation_degrees: int = 10
    interpolation: Literal["nearest", "linear"] = "nearest"
    fill: float = -1.0
    scale: float = 0.1
    shift: float = 0.1
    intensity_per_slice: bool = True
    flip: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.rotation_degrees < 90:
            raise ValueError(f"rotation_degrees: got {self.rotation_degrees}, need 0 to 89")
        if self.interpolation not in {"nearest", "linear"}:
            raise ValueError(f"interpolation: got {self.interpolation!r}, need 'nearest' or 'linear'")
        if not 0 <= self.scale < 1 or self.shift < 0:
            raise ValueError(f"scale, shift: got {self.scale} and {self.shift}, need 0 <= scale < 1 and shift >= 0")


_PUBLISHED = AugmentationSettings()


@dataclass(frozen=True)
class _Motion:
    """How one sample is turned: a rotation in the plane of two axes, then flips."""

    plane: tuple[int, int]
    degrees: int
    flips: tuple[bool, ...]


def augment(
    image: Tensor, label: Tensor, generator: torch.Generator, settings: AugmentationSettings = _PUBLISHED
) -> tuple[Tensor, Tensor]:
    """Varies every sample of a batch by itself, in the published order: rotation, intensity, flips.

    A rotation turns the plane of two random axes about the crop's centre as `scipy.ndimage.rotate(reshape=False)` does.
    Rotation and flips move the voxels in one step.

    Args:
        image: [B,4,D,H,W] floating point, on any device.
        label: [B,D,H,W] uint8, on the same device.
        generator: on the CPU; the draws and the moves of voxels do not depend on the device.
        settings: what is varied and how far.

    Returns:
        A new image [B,4,D,H,W] float32 and label [B,D,H,W] uint8, on the device of the arguments.

    Raises:
        ValueError: shapes, dtypes or devices are not those above.
    """
    _check_batch(image, label)
    motions = _draw_motions(len(image), generator, settings)
    scale, shift = _draw_intensities(image.shape, generator, settings)
    moved = [_move(*sample, settings) for sample in zip(image, label, motions, strict=True)]
    turned_image = torch.stack([sample for sample, _ in moved])
    turned_label = torch.stack([sample for _, sample in moved])
    # Drawn alike and independently for every slice, so that flips may come before them.
    return turned_image.mul_(scale.to(image.device)).add_(shift.to(image.device)), turned_label


def _check_batch(image: Tensor, label: Tensor) -> None:
    if image.dim() != 5 or not image.is_floating_point():
        found = f"{image.dtype} of shape {tuple(image.shape)}"
        raise ValueError(f"image: got {found}, need floating point of shape (B, modalities, D, H, W)")
    expected = (image.shape[0], *image.shape[2:])
    if label.shape != expected or label.dtype != torch.uint8:
        raise ValueError(
            f"label: got {label.dtype} of shape {tuple(label.shape)}, need torch.uint8 of shape {expected}"
        )
    if label.device != image.device:
        raise ValueError(f"label: is on {label.device}, needs to be on {image.device} as the image")


def _draw_motions(count: int, generator: torch.Generator, settings: AugmentationSettings) -> list[_Motion]:
    # Drawn even where it is left out: other draws then stay the same.
    planes = torch.randint(len(_PLANES), (count,), generator=generator).tolist()
    reach = settings.rotation_degrees
    degrees = torch.randint(-reach, max(reach, 1), (count,), generator=generator).tolist()
    flips = torch.randint(2, (count, 3), generator=generator).tolist()
    return [
        _Motion(_PLANES[planes[b]], degrees[b] if reach else 0, tuple(settings.flip and bool(f) for f in flips[b]))
        for b in range(count)
    ]


def _draw_intensities(
    shape: torch.Size, generator: torch.Generator, settings: AugmentationSettings
) -> tuple[Tensor, Tensor]:
    """Draws factors and summands, broadcastable to [B,4,D,H,W]."""
    slices = shape[2] if settings.intensity_per_slice else 1
    uniform = torch.rand((2, shape[0], shape[1], slices, 1, 1), generator=generator) * 2 - 1
    return 1 + settings.scale * uniform[0], settings.shift * uniform[1]


def _move(image: Tensor, label: Tensor, motion: _Motion, settings: AugmentationSettings) -> tuple[Tensor, Tensor]:
    """Turns one sample: image [4,D,H,W] and label [D,H,W]."""
    shape = label.shape
    rows, columns = _source_coordinates(shape, motion)
    inside = _across_plane(
        _is_inside(rows, shape[motion.plane[0]]) & _is_inside(columns, shape[motion.plane[1]]), motion
    )
    inside = inside.to(label.device)
    nearest = _flat_sources(torch.floor(rows + 0.5), torch.floor(columns + 0.5), label, motion)
    moved_label = _take(label[None], nearest)[0] * inside
    if settings.interpolation == "nearest":
        moved_image = _take(image, nearest).float()
    else:
        moved_image = _interpolate(image, rows, columns, motion)
    return moved_image.masked_fill_(~inside, settings.fill), moved_label


def _source_coordinates(shape: torch.Size, motion: _Motion) -> tuple[Tensor, Tensor]:
    """Finds where each pixel of the turned plane comes from, along the plane's first and second axis.

    Computed on the CPU in double precision, so that the same voxels are taken on every device.
    """
    first, second = motion.plane
    rows, columns = _positions(shape, motion, first).double()[:, None], _positions(shape, motion, second).double()
    row_centre, column_centre = (shape[first] - 1) / 2, (shape[second] - 1) / 2
    cosine, sine = math.cos(math.radians(motion.degrees)), math.sin(math.radians(motion.degrees))
    row_offset = row_centre - (cosine * row_centre + sine * column_centre)
    column_offset = column_centre - (cosine * column_centre - sine * row_centre)
    return cosine * rows + sine * columns + row_offset, cosine * columns - sine * rows + column_offset


def _positions(shape: torch.Size, motion: _Motion, axis: int) -> Tensor:
    positions = torch.arange(shape[axis])
    return positions.flip(0) if motion.flips[axis] else positions


def _is_inside(coordinates: Tensor, length: int) -> Tensor:
    return (coordinates >= 0) & (coordinates <= length - 1)


def _across_plane(plane: Tensor, motion: _Motion) -> Tensor:
    """Gives a [rows, columns] tensor a third axis, of length 1, where the sample's third axis is."""
    return plane.unsqueeze(3 - sum(motion.plane))


def _flat_sources(rows: Tensor, columns: Tensor, like: Tensor, motion: _Motion) -> Tensor:
    """Combines whole source coordinates in the plane with those of the third axis.

    Returns:
        Flat indices [D,H,W] int64 into a volume of the shape of `like`, on its device.
    """
    shape = like.shape
    first, second = motion.plane
    third = 3 - first - second
    strides = (shape[1] * shape[2], shape[2], 1)
    plane = rows.long().clamp(0, shape[first] - 1) * strides[first]
    plane += columns.long().clamp(0, shape[second] - 1) * strides[second]
    line = _positions(shape, motion, third) * strides[third]
    line = line.view([-1 if axis == third else 1 for axis in range(3)])
    # Added on the device: the parts are small, the sum is not.
    return _across_plane(plane, motion).to(like.device) + line.to(like.device)


def _take(volumes: Tensor, sources: Tensor) -> Tensor:
    """Looks up voxels of [N,D,H,W] by flat index [D,H,W]; index_select is many times faster here than indexing."""
    return volumes.flatten(1).index_select(1, sources.flatten()).view(len(volumes), *sources.shape)


def _interpolate(image: Tensor, rows: Tensor, columns: Tensor, motion: _Motion) -> Tensor:
    """Interpolates linearly between the four neighbours in the plane of the rotation."""
    upper_row, upper_column = torch.floor(rows), torch.floor(columns)
    row_weight, column_weight = rows - upper_row, columns - upper_column
    result = torch.zeros(image.shape, device=image.device)
    for row, row_share in ((upper_row, 1 - row_weight), (upper_row + 1, row_weight)):
        for column, column_share in ((upper_column, 1 - column_weight), (upper_column + 1, column_weight)):
            sources = _flat_sources(row, column, image[0], motion)
            weight = _across_plane((row_share * column_share).float(), motion).to(image.device)
            result.addcmul_(_take(image, sources).float(), weight)
    return result
