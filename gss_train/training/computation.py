"""How a step is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gss_train.config import PrecisionName
from gss_train.data import PUBLISHED_AUGMENTATION, AugmentationSettings


@dataclass(frozen=True)
class Computation:
    """How a step is computed.

    Attributes:
        device: of the network.
        autocast: bfloat16 or float16 for the network's forward pass; None: float32.
        channels_last: keep the channels of a voxel together.
        augmentation: how crops are varied.
    """

    device: torch.device
    autocast: torch.dtype | None = None
    channels_last: bool = False
    augmentation: AugmentationSettings = PUBLISHED_AUGMENTATION

    @property
    def precision(self) -> str:
        """That the network computes in, such as "float32"."""
        return str(self.autocast or torch.float32).removeprefix("torch.")


def pick_autocast(precision: PrecisionName, device: torch.device) -> torch.dtype | None:
    """What the network's forward pass computes in under autocast; None: float32."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
