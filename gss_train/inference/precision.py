"""What a network computes in: float32, TF32, or 16 bits under autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gss_train.config import ComputedPrecision, PrecisionName

_AUTOCAST: dict[ComputedPrecision, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# Of NVIDIA's compute capability: Ampere.
_FIRST_WITH_TF32 = (8, 0)


def pick_precision(asked: PrecisionName, device: torch.device) -> ComputedPrecision:
    """What a network computes in on a device: that which is asked for, where the device has it, else float32."""
    if asked == "auto":
        in_hardware = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if in_hardware else "float32"
    return asked if _has(device, asked) else "float32"


def describe_precision(asked: PrecisionName, device: torch.device) -> str:
    """For people: what `pick_precision` picks, and what for if it is not what was asked for."""
    computed = pick_precision(asked, device)
    return computed if asked in {"auto", computed} else f"{computed} in place of {asked}, which {device} lacks"


def _has(device: torch.device, precision: ComputedPrecision) -> bool:
    if precision == "tf32":
        # A capability of AMD's is another count.
        is_nvidia = device.type == "cuda" and torch.version.hip is None
        return is_nvidia and torch.cuda.get_device_capability(device) >= _FIRST_WITH_TF32
    if precision == "bfloat16" and device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return precision == "float32" or torch.amp.is_autocast_available(device.type)


def autocast_dtype(precision: ComputedPrecision) -> torch.dtype | None:
    """What the network's forward pass computes in under autocast; None: without autocast."""
    return _AUTOCAST.get(precision)


def autocast(precision: ComputedPrecision, device: torch.device) -> torch.autocast:
    """The context of a network's forward pass."""
    dtype = autocast_dtype(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


@contextmanager
def arithmetic(precision: ComputedPrecision, *, deterministic: bool = False) -> Iterator[None]:
    """What PyTorch does in float32 on a GPU, and how cuDNN picks its algorithms; afterwards all is as it was.

    Convolutions are in TF32 with "tf32" only. Matrix products never are, whatever the environment says
    (`TORCH_ALLOW_TF32_CUBLAS_OVERRIDE`).

    Args:
        precision: of the networks.
        deterministic: have cuDNN take algorithms that repeat their result to the bit, rather than time them and take
            the fastest.
    """
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    # `cudnn.conv.fp32_precision` instead would make PyTorch raise where it reads `allow_tf32` itself, as `cudnn.flags`
    # and torch.compile do.
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark, cudnn.deterministic
    cudnn.allow_tf32, products.allow_tf32 = precision == "tf32", False
    cudnn.benchmark, cudnn.deterministic = not deterministic, deterministic
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def computing(precision: ComputedPrecision, device: torch.device) -> Iterator[None]:
    """A trained network computes in a precision; afterwards all is as it was.

    What `gss_train.inference` and `gss_train.evaluation` make of its logits is float32 all the same.
    """
    with arithmetic(precision), autocast(precision, device):
        yield
