"""What PyTorch computes in at a moment, by its own word."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Arithmetic(NamedTuple):
    """Of the CPU's autocast, None without it, and of cuDNN and cuBLAS."""

    autocast: torch.dtype | None
    tf32_convolutions: bool
    tf32_products: bool
    benchmark: bool
    deterministic: bool


def arithmetic_now() -> Arithmetic:
    cudnn = torch.backends.cudnn
    return Arithmetic(
        torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None,
        cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        cudnn.benchmark,
        cudnn.deterministic,
    )
