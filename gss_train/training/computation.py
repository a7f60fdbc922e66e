"""How a step is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gss_train.config import ComputedPrecision
from gss_train.data import PUBLISHED_AUGMENTATION, AugmentationSettings
from gss_train.inference import autocast, autocast_dtype


@dataclass(frozen=True)
class Computation:
    """How a step is computed.

    Attributes:
        device: of the network.
        precision: that the network computes in, on that device.
        channels_last: keep the channels of a voxel together.
        augmentation: how crops are varied.
        deterministic: have cuDNN take algorithms that repeat their result to the bit.
    """

    device: torch.device
    precision: ComputedPrecision = "float32"
    channels_last: bool = False
    augmentation: AugmentationSettings = PUBLISHED_AUGMENTATION
    deterministic: bool = False

    @property
    def in_16_bits(self) -> bool:
        """Whether activations are."""
        return autocast_dtype(self.precision) is not None

    def autocast(self) -> torch.autocast:
        """The context of the network's forward pass."""
        return autocast(self.precision, self.device)
