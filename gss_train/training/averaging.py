"""A moving average of the weights, to be evaluated in their place."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from gss_train.models import SegmentationNetwork


class WeightAverage:
    """A copy of the network whose weights follow the trained ones.

    After t steps `average += (1 - d) * (weights - average)` with `d = min(decay, (1 + t) / (10 + t))`, so that the
    first weights are soon forgotten.

    Attributes:
        network: the copy, in evaluation mode.

    Args:
        network: that is trained.
        decay: between 0 and 1; the average reaches back about `1 / (1 - decay)` steps.
    """

    def __init__(self, network: SegmentationNetwork, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def follow(self, network: SegmentationNetwork, steps: int) -> None:
        """Take in the weights after a step.

        Args:
            network: that is trained.
            steps: how many it has taken.
        """
        share = 1 - min(self.decay, (1 + steps) / (10 + steps))
        averaged, trained = (tuple[Tensor, ...](one.parameters()) for one in (self.network, network))
        torch._foreach_lerp_(averaged, trained, share)
