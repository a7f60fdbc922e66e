"""What all launches share: blocks, programs, cards and how kernels are compiled."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from gss_kernels.layout import Layout, addressable, find_layout
from gss_kernels.tensors import GroupLogits, Inputs
from gss_kernels.triton import volumes
from gss_kernels.triton.configuration import Configuration

FINISH_CHUNK = 128
FINISH = Configuration(voxels_per_thread=1, num_warps=8)
# Newer versions of Triton ask for a decision on fused multiply-add, which the kernels want.
OPTIONS = {"enable_fp_fusion": True}
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class Card(NamedTuple):
    """What launches depend on.

    Attributes:
        multiprocessors: how many.
        threads_per_warp: AMD's have 64.
        ptx: whether kernels may hold inline PTX: on NVIDIA hardware.
    """

    multiprocessors: int
    threads_per_warp: int
    ptx: bool

    @classmethod
    def of(cls, device: torch.device) -> Card:
        """The card at hand; the interpreter, on the CPU, runs one program at a time."""
        on_cpu = device.type == "cpu"
        multiprocessors = 1 if on_cpu else int(torch.cuda.get_device_properties(device).multi_processor_count)
        nvidia = torch.version.cuda is not None and not _INTERPRETED
        return cls(multiprocessors, 64 if torch.version.hip is not None else 32, nvidia)

    def block(self, configuration: Configuration) -> int:
        """Voxels of a block."""
        return configuration.block(self.threads_per_warp)

    def blocks(self, layout: Layout, configuration: Configuration) -> int:
        """Blocks of voxels in a volume."""
        return int(triton.cdiv(layout.num_voxels, self.block(configuration)))

    def programs(self, layout: Layout, configuration: Configuration) -> int:
        """Programs per sample of a kernel whose programs walk over blocks: enough to fill the card, no more."""
        wanted = triton.cdiv(configuration.programs_per_multiprocessor * self.multiprocessors, layout.num_samples)
        return int(min(wanted, self.blocks(layout, configuration)))


_layout = functools.lru_cache(maxsize=1024)(find_layout)


def addressed(logits: GroupLogits) -> tuple[GroupLogits, Layout]:
    """The logits, copied if the kernels cannot address them as they are, and their layout."""
    layout = _layout(tuple((tensor.shape, tensor.stride()) for tensor in logits.tensors), logits.stacked)
    return (logits, layout) if layout is not None else addressed(addressable(logits))


def kernel_volumes(logits: GroupLogits, layout: Layout) -> volumes.Volumes:
    """What a kernel takes of addressed logits."""
    return volumes.Volumes(logits.per_modality(), layout.strides, layout.num_voxels)


def kernel_inputs(inputs: Inputs, logits: GroupLogits, layout: Layout) -> volumes.Inputs:
    """What a kernel takes of a call whose logits are addressed."""
    return volumes.Inputs(
        kernel_volumes(logits, layout),
        None if inputs.labels is None else inputs.labels.contiguous(),
        as_bytes(inputs.available),
        as_bytes(inputs.keep),
        inputs.seed,
    )


def as_bytes(tensor: Tensor | None) -> Tensor | None:
    """Booleans as bytes."""
    return None if tensor is None else tensor.contiguous().view(torch.uint8)


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensors'."""
    return contextlib.nullcontext() if tensor.device.type == "cpu" else torch.cuda.device(tensor.device)
