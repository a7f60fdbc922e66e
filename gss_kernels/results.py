"""What the losses return besides a number."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

ROUTES = ("leaders agree", "leaders split", "members", "minimum")
"""The ways in which a category's target comes about, as in `GSSStatistics.routes`."""


class GSSStatistics(NamedTuple):
    """What the vote did, over the samples with at least two available modalities; without gradient.

    Attributes:
        routes: `[C, 4]`, for each category the share of the voxels by route, in the order of `ROUTES`.
        agreement: `[M]`, for each modality the share of the voxels where its most probable category is that of the
            target; over the samples that have the modality.
    """

    routes: Tensor
    agreement: Tensor


class ObjectiveTerms(NamedTuple):
    """The objective and what it is made of; all but `total` without gradient.

    Attributes:
        total: scalar.
        cross_entropy: `[M]`, of each modality.
        dice: `[M]`, of each modality.
        gss: scalar, the GSS loss.
        statistics: None unless asked for.
    """

    total: Tensor
    cross_entropy: Tensor
    dice: Tensor
    gss: Tensor
    statistics: GSSStatistics | None
