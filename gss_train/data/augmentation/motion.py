"""Geometric augmentation: which motion a sample makes, and where each of its voxels then comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gss_train.data.augmentation.settings import CONTROL_SPACING

# Pairs of spatial axes that span the plane of a rotation.
PLANES = ((0, 1), (1, 2), (0, 2))
# Displacements and spline weights are multiples of this. A product of one displacement and three weights then has at
# most 51 significant bits, so that sums of them are exact in float64, whatever their order.
_FIXED_POINT = 2.0**-12


@dataclass(frozen=True)
class Motion:
    """How one sample moves: elastic deformation, rotation and scaling about its centre, then flips.

    Attributes:
        plane: the two spatial axes that turn.
        degrees: angle, in the sense of `scipy.ndimage.rotate` with `axes=plane[::-1]`.
        flips: for each axis whether it is turned around.
        factors: by which what is shown grows along each axis.
        displacement: of the control points along each axis, float64 [3,nodes,nodes,nodes] on the CPU, in voxels.
    """

    plane: tuple[int, int]
    degrees: int
    flips: tuple[bool, bool, bool]
    factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
    displacement: Tensor | None = None

    @property
    def keeps_grid(self) -> bool:
        """Whether nothing but flips is done."""
        return self.degrees == 0 and not self.is_scaled and self.displacement is None

    @property
    def is_scaled(self) -> bool:
        """Whether anything grows or shrinks."""
        return set(self.factors) != {1.0}

    @property
    def third_axis(self) -> int:
        """The axis about which the plane turns."""
        return 3 - sum(self.plane)


def control_nodes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Number of control points along each axis of a volume; a cubic B-spline reaches one before and two behind."""
    return tuple((length - 1) // CONTROL_SPACING + 4 for length in shape)


def round_to_fixed_point(values: Tensor) -> Tensor:
    """Rounds to the float64 multiples in which elastic deformation is computed."""
    return torch.round(values.double() / _FIXED_POINT) * _FIXED_POINT


def source_coordinates(shape: tuple[int, ...], motion: Motion, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Finds where each voxel of the moved volume comes from.

    In double precision and by operations that round alike everywhere, so that every device takes the same voxels.

    Args:
        shape: (D, H, W) of the volume.
        motion: what it does.
        device: where an elastic deformation is computed. Other motions take so little that they stay on the CPU.

    Returns:
        Coordinates along `motion.plane[0]`, `motion.plane[1]` and `motion.third_axis`, float64, broadcastable to
        [D,H,W].
    """
    positions = [_positions(shape, motion, axis) for axis in range(3)]
    if motion.displacement is not None:
        positions = _displaced(positions, shape, motion.displacement.to(device, non_blocking=True))
    first, second = motion.plane
    third = motion.third_axis
    cosine, sine = (turn(math.radians(motion.degrees)) for turn in (math.cos, math.sin))
    centre = [(length - 1) / 2 for length in shape]
    if motion.is_scaled:
        # Not divided, as CUDA multiplies by the reciprocal.
        positions = [
            (position - middle) * (1 / factor) + middle
            for position, middle, factor in zip(positions, centre, motion.factors, strict=True)
        ]
    row_offset = centre[first] - (cosine * centre[first] + sine * centre[second])
    column_offset = centre[second] - (cosine * centre[second] - sine * centre[first])
    rows = cosine * positions[first] + sine * positions[second] + row_offset
    columns = cosine * positions[second] - sine * positions[first] + column_offset
    return rows, columns, positions[third]


def _positions(shape: tuple[int, ...], motion: Motion, axis: int) -> Tensor:
    """Voxel numbers along one axis before its flip, float64, broadcastable to [D,H,W]."""
    positions = torch.arange(shape[axis], dtype=torch.float64)
    if motion.flips[axis]:
        positions = positions.flip(0)
    return positions.view([-1 if other == axis else 1 for other in range(3)])


def _displaced(positions: list[Tensor], shape: tuple[int, ...], nodes: Tensor) -> list[Tensor]:
    """Adds to the positions what a cubic B-spline with `nodes` as control points has there."""
    weights = [
        _spline_weights(position.flatten(), nodes.shape[1 + axis]).to(nodes.device, non_blocking=True)
        for axis, position in enumerate(positions)
    ]
    field = weights[1] @ (nodes @ weights[2].T)
    field = (weights[0] @ field.flatten(2)).view(3, *shape)
    return [
        position.to(nodes.device, non_blocking=True) + along for position, along in zip(positions, field, strict=True)
    ]


def _spline_weights(positions: Tensor, nodes: int) -> Tensor:
    """Weight of every control point at every position, float64 [positions,nodes]; rows sum to exactly 1."""
    first = torch.div(positions, CONTROL_SPACING, rounding_mode="floor")
    t = positions / CONTROL_SPACING - first
    outer = round_to_fixed_point(torch.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, t**3]) / 6)
    fourth = 1 - outer.sum(0)
    weights = torch.zeros(len(positions), nodes, dtype=torch.float64)
    four = torch.stack([outer[0], outer[1], fourth, outer[2]], dim=1)
    return weights.scatter_(1, first.long()[:, None] + torch.arange(4), four)
