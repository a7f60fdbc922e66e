"""How the kernels address volumes: M tensors `[B, C, N]` of one set of strides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gss_kernels.inputs import GroupLogits

Strides = tuple[int, int, int]


@dataclass(frozen=True)
class Volumes:
    """M tensors `[B, C, *spatial]` whose spatial axes act as one.

    Attributes:
        tensors: one tensor for each modality.
        strides: of batch, category and voxel, in elements, common to all tensors.
        num_samples: B.
        num_categories: C.
        num_voxels: N.
    """

    tensors: tuple[Tensor, ...]
    strides: Strides
    num_samples: int
    num_categories: int
    num_voxels: int

    @classmethod
    def of(cls, logits: GroupLogits) -> Volumes:
        """Views of logits that went through `addressable`."""
        tensors = logits.per_modality()
        strides = volume_strides(tensors[0])
        assert strides is not None
        return cls(tensors, strides, logits.num_samples, logits.num_categories, logits.num_voxels)


def addressable(logits: GroupLogits) -> GroupLogits:
    """The logits themselves where the kernels can address them, else contiguous copies, which autograd sees.

    Addressable are tensors of any memory format, channels last included, and slices of larger tensors, as long as the
    modalities share their strides and the spatial axes join into one.
    """
    strides = {volume_strides(tensor) for tensor in logits.per_modality()}
    if len(strides) == 1 and None not in strides:
        return logits
    return GroupLogits(tuple(tensor.contiguous() for tensor in logits.tensors), logits.stacked)


def empty_gradients(logits: GroupLogits) -> GroupLogits:
    """Uninitialised tensors for the gradients of addressable logits, addressable too, in the logits' memory format."""
    gradients = GroupLogits(tuple(torch.empty_like(tensor) for tensor in logits.tensors), logits.stacked)
    if volume_strides(gradients.per_modality()[0]) is not None:
        return gradients
    contiguous = torch.contiguous_format
    return GroupLogits(
        tuple(torch.empty_like(tensor, memory_format=contiguous) for tensor in logits.tensors), logits.stacked
    )


def volume_strides(tensor: Tensor) -> Strides | None:
    """Strides of `[B, C, *spatial]` seen as `[B, C, N]`, in elements; None if the spatial axes do not join into one."""
    voxel_stride: int | None = None
    next_stride = 0
    for size, stride in zip(reversed(tensor.shape[2:]), reversed(tensor.stride()[2:]), strict=True):
        if size == 1:
            continue
        if voxel_stride is None:
            voxel_stride = stride
        elif stride != next_stride:
            return None
        next_stride = stride * size
    return tensor.stride(0), tensor.stride(1), 1 if voxel_stride is None else voxel_stride
