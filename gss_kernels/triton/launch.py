"""What all launches share: blocks, programs, devices and how kernels are compiled."""

from __future__ import annotations

import contextlib
import os

import torch
import triton
from torch import Tensor

from gss_kernels.layout import Volumes
from gss_kernels.triton.configuration import Configuration

FINISH_CHUNK = 128
FINISH = Configuration(voxels_per_thread=1, num_warps=8)
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def use_ptx() -> bool:
    """Whether kernels may hold inline PTX: on NVIDIA hardware."""
    return torch.version.cuda is not None and not _INTERPRETED


def block_of(configuration: Configuration) -> int:
    """Voxels of a block; AMD's warps have 64 threads."""
    return configuration.block(64 if torch.version.hip is not None else 32)


def compile_options(configuration: Configuration) -> dict[str, int | bool]:
    """Launch options; newer versions of Triton ask for a decision on fused multiply-add, which the kernels want."""
    return {"num_warps": configuration.num_warps, "enable_fp_fusion": True}


def blocks_of(volumes: Volumes, configuration: Configuration) -> int:
    """Blocks of voxels in a volume."""
    return int(triton.cdiv(volumes.num_voxels, block_of(configuration)))


def walking_programs(volumes: Volumes, configuration: Configuration) -> int:
    """Programs per sample of a kernel whose programs walk over blocks: enough to fill the card, no more."""
    multiprocessors = multiprocessors_of(volumes.tensors[0].device)
    wanted = triton.cdiv(configuration.programs_per_multiprocessor * multiprocessors, volumes.num_samples)
    return int(min(wanted, blocks_of(volumes, configuration)))


def multiprocessors_of(device: torch.device) -> int:
    """Of a card; the interpreter, on the CPU, runs one program at a time."""
    return 1 if device.type == "cpu" else int(torch.cuda.get_device_properties(device).multi_processor_count)


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensors'."""
    return contextlib.nullcontext() if tensor.device.type == "cpu" else torch.cuda.device(tensor.device)


def as_bytes(tensor: Tensor | None, placeholder: Tensor) -> Tensor:
    """Booleans as bytes; `placeholder`, which is not read, where there are none."""
    return placeholder if tensor is None else tensor.contiguous().view(torch.uint8)
