"""Moves voxels: looks up every voxel of a moved volume where it comes from, with a fill outside."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gss_train.data.augmentation.motion import Motion, source_coordinates


class VoxelMover:
    """Moves the samples of a batch one after the other, through work memory that they share."""

    def __init__(self, image: Tensor, *, fill: float, linear: bool) -> None:
        """Reserves the work memory.

        Args:
            image: the batch [B,modalities,D,H,W], for its shape and device.
            fill: image value of voxels that come from outside; their label is 0.
            linear: interpolate the image between its neighbours rather than take the nearest voxel.
        """
        self._shape = tuple(image.shape[2:])
        self._fill = fill
        self._linear = linear
        self._outside = self._shape[0] * self._shape[1] * self._shape[2]
        # One voxel more holds what is outside: a single look-up then does for all voxels.
        self._image = image.new_empty((image.shape[1], self._outside + 1), dtype=torch.float32)
        self._label = image.new_empty(self._outside + 1, dtype=torch.uint8)
        self._image[:, self._outside :] = fill
        # Slices: a number put into a single place is copied there, and the host waits for the device.
        self._label[self._outside :] = 0

    def move(self, image: Tensor, label: Tensor, motion: Motion, out_image: Tensor, out_label: Tensor) -> None:
        """Moves one sample.

        Args:
            image: [modalities,D,H,W] floating point.
            label: [D,H,W] uint8.
            motion: what it does.
            out_image: contiguous [modalities,D,H,W] float32; receives the image.
            out_label: contiguous [D,H,W] uint8; receives the label, always of the nearest voxel.
        """
        self._label[: self._outside].view(label.shape).copy_(label)
        axes = (*motion.plane, motion.third_axis)
        coordinates = source_coordinates(self._shape, motion, image.device)
        nearest = self._nearest(coordinates, axes)
        torch.index_select(self._label, 0, nearest, out=out_label.view(-1))
        moved = out_image.view(len(image), -1)
        if self._linear:
            out_image.copy_(self._interpolate(image, coordinates, axes))
            moved.masked_fill_(nearest == self._outside, self._fill)
        else:
            self._image[:, : self._outside].view(image.shape).copy_(image)
            torch.index_select(self._image, 1, nearest, out=moved)

    def _nearest(self, coordinates: tuple[Tensor, ...], axes: tuple[int, ...]) -> Tensor:
        """Flat index of the voxel nearest to each coordinate, int32 [D*H*W]; that of the fill outside."""
        first, second, third = (
            self._along(torch.floor(places + 0.5), axis).masked_fill_(
                (places < 0) | (places > self._shape[axis] - 1), self._outside
            )
            for places, axis in zip(coordinates, axes, strict=True)
        )
        return self._sum(first, second, third).clamp_(max=self._outside).flatten()

    def _along(self, places: Tensor, axis: int) -> Tensor:
        """What whole coordinates along one axis, moved to the nearest that exist, contribute to a flat index."""
        # Look-ups are bound by memory, and 32 bits are enough for any crop that fits it.
        stride = (self._shape[1] * self._shape[2], self._shape[2], 1)[axis]
        return places.clamp(0, self._shape[axis] - 1).int().mul_(stride)

    def _sum(self, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        # Added on the device at last: without elastic deformation the parts are small, and only the sum is not.
        return (first + second).to(self._image.device, non_blocking=True) + third.to(
            self._image.device, non_blocking=True
        )

    def _interpolate(self, image: Tensor, coordinates: tuple[Tensor, ...], axes: tuple[int, ...]) -> Tensor:
        """Value between the neighbours of each coordinate, [modalities,D,H,W]; outside, that of the border."""
        grid = image.new_empty((1, *self._shape, 3), dtype=torch.float32)
        for places, axis in zip(coordinates, axes, strict=True):
            # From -1 to 1 along each axis, of which the last is named first.
            scaled = places * (2 / max(self._shape[axis] - 1, 1)) - 1
            grid[0, ..., 2 - axis] = scaled.float().to(image.device, non_blocking=True)
        return functional.grid_sample(image[None].float(), grid, padding_mode="border", align_corners=True)[0]
