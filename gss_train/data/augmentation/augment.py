"""Augmentation of whole batches on the device that trains: the published one, and scaling and elastic deformation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gss_train.data.augmentation.motion import PLANES, Motion, control_nodes, round_to_fixed_point
from gss_train.data.augmentation.settings import PUBLISHED_AUGMENTATION, AugmentationSettings
from gss_train.data.augmentation.voxel_mover import VoxelMover


def augment(
    image: Tensor,
    label: Tensor,
    generator: torch.Generator | Sequence[torch.Generator],
    settings: AugmentationSettings = PUBLISHED_AUGMENTATION,
) -> tuple[Tensor, Tensor]:
    """Varies every sample of a batch by itself: rotation, flips and intensity as published.

    A rotation turns the plane of two random axes about the crop's centre as `scipy.ndimage.rotate(reshape=False)` does.
    Rotation, flips, scaling and elastic deformation move the voxels in one step: they are looked up once.

    Args:
        image: [B,4,D,H,W] floating point, on any device.
        label: [B,D,H,W] uint8, on the same device.
        generator: on the CPU, one for the batch or one for each sample, whose draws then do not depend on the others;
            neither the draws nor which voxels are taken depend on the device.
        settings: what is varied and how far.

    Returns:
        A new image [B,4,D,H,W] float32 and label [B,D,H,W] uint8, on the device of the arguments.

    Raises:
        ValueError: shapes, dtypes or devices are not those above, or the generators are not as many as the samples.
    """
    _check_batch(image, label)
    if isinstance(generator, torch.Generator):
        motions, scale, shift = _draw(image.shape, generator, settings)
    else:
        if len(generator) != len(image):
            raise ValueError(f"generator: got {len(generator)}, need one or {len(image)}, one for each sample")
        alone = torch.Size((1, *image.shape[1:]))
        parts = [_draw(alone, own, settings) for own in generator]
        motions = [motion for own, _, _ in parts for motion in own]
        scale, shift = torch.cat([own for _, own, _ in parts]), torch.cat([own for _, _, own in parts])
    # Here and wherever draws go to the device: a blocking copy would wait for all that the device has to do.
    scale, shift = (values.to(image.device, non_blocking=True) for values in (scale, shift))
    moved_image = torch.empty(image.shape, dtype=torch.float32, device=image.device)
    moved_label = torch.empty(label.shape, dtype=torch.uint8, device=label.device)
    mover: VoxelMover | None = None
    for b, motion in enumerate(motions):
        if motion.keeps_grid:
            axes = [axis for axis in range(3) if motion.flips[axis]]
            moved_image[b] = image[b].flip([1 + axis for axis in axes])
            moved_label[b] = label[b].flip(axes)
        else:
            mover = mover or VoxelMover(image, fill=settings.fill, linear=settings.interpolation == "linear")
            mover.move(image[b], label[b], motion, moved_image[b], moved_label[b])
        # After the flips, though published before them: every slice has a draw of its own from the same distribution.
        # Sample by sample, in the processor's cache; `addcmul` would be one call, but slower, and round otherwise.
        moved_image[b].mul_(scale[b]).add_(shift[b])
    return moved_image, moved_label


def _draw(
    shape: torch.Size, generator: torch.Generator, settings: AugmentationSettings
) -> tuple[list[Motion], Tensor, Tensor]:
    """Motions, factors and summands of a batch."""
    motions = draw_motions(shape[0], generator, settings)
    scale, shift = draw_intensities(shape, generator, settings)
    # Last, so that everything else is drawn alike with and without them.
    return _with_options(motions, shape, generator, settings), scale, shift


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


def draw_motions(count: int, generator: torch.Generator, settings: AugmentationSettings) -> list[Motion]:
    """Draws plane, angle and flips of every sample."""
    # Drawn even where it is left out: other draws then stay the same.
    planes = torch.randint(len(PLANES), (count,), generator=generator).tolist()
    reach = settings.rotation_degrees
    degrees = torch.randint(-reach, max(reach, 1), (count,), generator=generator).tolist()
    flips = (torch.randint(2, (count, 3), generator=generator) * settings.flip).bool().tolist()
    return [
        Motion(PLANES[plane], angle if reach else 0, tuple(flip))
        for plane, angle, flip in zip(planes, degrees, flips, strict=True)
    ]


def draw_intensities(
    shape: torch.Size, generator: torch.Generator, settings: AugmentationSettings
) -> tuple[Tensor, Tensor]:
    """Draws factors and summands, float32, broadcastable to [B,4,D,H,W]."""
    slices = shape[2] if settings.intensity_per_slice else 1
    uniform = torch.rand((2, shape[0], shape[1], slices, 1, 1), generator=generator) * 2 - 1
    return 1 + settings.scale * uniform[0], settings.shift * uniform[1]


def _with_options(
    motions: list[Motion], shape: torch.Size, generator: torch.Generator, settings: AugmentationSettings
) -> list[Motion]:
    """Draws scaling and elastic deformation, where they are wanted."""
    if not settings.scaling and not settings.elastic:
        return motions
    draws = _uniform(generator, len(motions), 3 if settings.scaling_per_axis else 1)
    factors = [tuple(own) for own in (1 + settings.scaling * draws).expand(-1, 3).tolist()]
    if not settings.elastic:
        return [replace(motion, factors=own) for motion, own in zip(motions, factors, strict=True)]
    nodes = round_to_fixed_point(settings.elastic * _uniform(generator, len(motions), 3, *control_nodes(shape[2:])))
    return [
        replace(motion, factors=own, displacement=displacement)
        for motion, own, displacement in zip(motions, factors, nodes, strict=True)
    ]


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Numbers from -1 to 1, float64."""
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
