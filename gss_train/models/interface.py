"""What every network takes and returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gss_train.models.checks import NUM_MODALITIES


class SegmentationOutput(NamedTuple):
    """What a network returns for a batch of B crops with C categories.

    Attributes:
        fused: logits of the fused prediction, `[B, C, D, H, W]`.
        separate: logits of each modality's own prediction, four of `[B, C, D, H, W]`, or None if not asked for.
        auxiliary: probability maps of the deep supervision at full resolution, finest level first, each
            `[B, C, D, H, W]`, or None if not asked for.
        regulariser: scalar to add to the objective; 0 where the network has none.
    """

    fused: Tensor
    separate: tuple[Tensor, ...] | None
    auxiliary: tuple[Tensor, ...] | None
    regulariser: Tensor


Features = tuple[Tensor, ...]
"""What a network's encoders make of a batch; only the network itself knows how to read it."""


class SegmentationNetwork(nn.Module, ABC):
    """What all networks can do.

    Args:
        activation_checkpointing: whether parts of the network are computed again in the backward pass rather than keep
            what they computed: less memory, more time.
    """

    def __init__(self, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.activation_checkpointing = activation_checkpointing

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        fused_modalities: Tensor,
        available: Tensor | None = None,
        per_modality: bool | None = None,
    ) -> SegmentationOutput:
        """Segment a batch.

        Args:
            x: scans `[B, 4, D, H, W]` in the order FLAIR, T1ce, T1, T2.
            fused_modalities: `[B, 4]` bool, the modalities that the fusion sees; never empty, within `available`.
            available: `[B, 4]` bool, the scans that exist; None: all of them.
            per_modality: whether to compute all but `fused`; None: as the network's training mode.

        Raises:
            ValueError: if x or a mask has a wrong shape, or a mask is not boolean.
        """

    @abstractmethod
    def encode(self, x: Tensor, available: Tensor | None = None) -> Features:
        """Encode every available modality, each by itself.

        Args:
            x: scans `[B, 4, D, H, W]`; the network's class says which axes it takes.
            available: `[B, 4]` bool, the scans that exist; the others count as zero whatever they hold. None: all.

        Returns:
            Features for `fuse` and `decode_separately`.

        Raises:
            ValueError: if x or `available` has a wrong shape, or `available` is not boolean.
        """

    @abstractmethod
    def fuse(self, features: Features, fused_modalities: Tensor) -> Tensor:
        """Fuse a subset of the modalities.

        Args:
            features: what `encode` returned.
            fused_modalities: `[B, 4]` bool, the subset; never empty, within the available modalities.

        Returns:
            Logits `[B, C, D, H, W]`.

        Raises:
            ValueError: if `fused_modalities` has a wrong shape or is not boolean.
        """

    @property
    def has_separate_predictions(self) -> bool:
        """Whether `decode_separately` can be asked."""
        return True

    @abstractmethod
    def decode_separately(self, features: Features) -> tuple[Tensor, ...]:
        """Logits of each modality's own prediction, four of `[B, C, D, H, W]`, from what `encode` returned.

        Raises:
            ValueError: if the network was built without a separate decoder.
        """

    def __call__(
        self,
        x: Tensor,
        fused_modalities: Tensor,
        available: Tensor | None = None,
        per_modality: bool | None = None,
    ) -> SegmentationOutput:
        """`forward`, with PyTorch's hooks; declared for its type."""
        output: SegmentationOutput = super().__call__(x, fused_modalities, available, per_modality)
        return output

    def run(self, part: nn.Module, *inputs: Tensor) -> Any:
        """`part(*inputs)`, with activation checkpointing where the network is to have it."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(part, *inputs, use_reentrant=False)
        return part(*inputs)

    def run_for_each_modality(self, decoder: nn.Module | None, levels: Features) -> tuple[Tensor, ...]:
        """What a decoder makes of each modality by itself.

        All of them are one batch or, with activation checkpointing, follow each other: what the backward pass needs of
        one for a moment then never exists of all at once.

        Args:
            decoder: maps levels `[B, channels, D, H, W]` to logits; None where the network was built without.
            levels: each `[B, M * channels, D, H, W]`, modality-major.

        Returns:
            Logits `[B, C, D, H, W]`, M of them.

        Raises:
            ValueError: if there is no decoder.
        """
        if decoder is None:
            raise ValueError("separate_decoder was False: the modalities have no predictions of their own")
        if self.activation_checkpointing:
            modalities = zip(*(level.chunk(NUM_MODALITIES, dim=1) for level in levels), strict=True)
            return tuple(self.run(decoder, *own) for own in modalities)
        batch = len(levels[0])
        logits: Tensor = decoder(*(level.reshape(batch * NUM_MODALITIES, -1, *level.shape[2:]) for level in levels))
        return logits.reshape(batch, NUM_MODALITIES, *logits.shape[1:]).unbind(1)
