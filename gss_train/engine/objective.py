"""What a training step minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gss_kernels import CategoryGroups, GSSLoss
from gss_train.engine.segmentation_loss import segmentation_loss
from gss_train.models import SegmentationOutput

_TEMPERATURE = 8.0


@dataclass(frozen=True)
class ObjectiveWeights:
    """Weights of the objective's terms; the regulariser brings its own."""

    fused: float
    separate: float
    auxiliary: float
    gss: float


BASELINE = ObjectiveWeights(fused=1.0, separate=1.0, auxiliary=1.0, gss=0.0)
"""The published objective of the baselines (RFNet, mmFormer)."""

GROUP_SELF_SUPPORT = ObjectiveWeights(fused=1.0, separate=0.7, auxiliary=1.0, gss=0.3 * _TEMPERATURE**2 / 10)
"""The published objective with group self-support (Qiu et al., ICCV 2023, training code)."""


class ObjectiveTerms(NamedTuple):
    """The objective and its terms before weighting, scalars; terms that are not used are 0."""

    total: Tensor
    fused: Tensor
    separate: Tensor
    auxiliary: Tensor
    gss: Tensor
    regulariser: Tensor


class Objective:
    """`fused + separate + auxiliary + gss`, weighted, plus the network's regulariser.

    Each of the first three is class-weighted cross-entropy plus soft Dice; `separate` and `auxiliary` are sums over
    modalities and levels.

    Args:
        groups: the category groups of the GSS loss.
        weights: of the terms. With a GSS weight of 0 that loss is not computed.
    """

    def __init__(self, groups: CategoryGroups, weights: ObjectiveWeights) -> None:
        self.weights = weights
        self.gss = GSSLoss(groups, temperature=_TEMPERATURE)

    def __call__(self, output: SegmentationOutput, labels: Tensor, available: Tensor, seed: int) -> ObjectiveTerms:
        """Evaluate the objective.

        Args:
            output: of the network, with `separate` and `auxiliary`.
            labels: `[B, D, H, W]` category indices.
            available: `[B, M]` bool, the scans that exist.
            seed: of the GSS loss's voxel mask.

        Raises:
            ValueError: `output` lacks the per-modality predictions or the auxiliary ones.
        """
        if output.separate is None or output.auxiliary is None:
            raise ValueError("output: has no separate and auxiliary predictions, need both; pass per_modality=True")
        weights = self.weights
        zero = output.regulariser.new_zeros(())
        fused = _supervised(torch.softmax(output.fused, dim=1), labels)
        auxiliary = sum((_supervised(probabilities, labels) for probabilities in output.auxiliary), zero)
        separate = sum(
            (
                _supervised(torch.softmax(logits, dim=1), labels, available[:, modality])
                for modality, logits in enumerate(output.separate)
            ),
            zero,
        )
        gss = self.gss(output.separate, seed=seed, available=available) if weights.gss else zero
        total = (
            weights.fused * fused
            + weights.separate * separate
            + weights.auxiliary * auxiliary
            + weights.gss * gss
            + output.regulariser
        )
        return ObjectiveTerms(total, fused, separate, auxiliary, gss, output.regulariser)


def _supervised(probabilities: Tensor, labels: Tensor, available: Tensor | None = None) -> Tensor:
    loss = segmentation_loss(probabilities, labels, available)
    return loss.cross_entropy + loss.dice
