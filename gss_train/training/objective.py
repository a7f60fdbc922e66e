"""What a training step minimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from gss_kernels import (
    CategoryGroups,
    GSSSettings,
    GSSStatistics,
    draw_voxel_mask,
    fused_gss_objective,
    fused_segmentation_loss,
)
from gss_kernels.settings import DICE_SMOOTHING, InputKind
from gss_train.config import SelfSupportOptions, TrainingOptions
from gss_train.models import SegmentationOutput
from gss_train.training.unfused_losses import plain_cross_entropy, squared_dice

PUBLISHED_VOTE = GSSSettings()
"""The hyper-parameters of the GSS loss as its paper has them."""


@dataclass(frozen=True)
class ObjectiveSettings:
    """Weights of the objective's terms, and which losses they are of; the regulariser brings its own weight.

    Attributes:
        fused: of the fused prediction's supervised loss.
        separate: of the modalities' own.
        auxiliary: of the deep supervision's.
        gss: of the GSS loss.
        squares: whether the Dice loss is `squared_dice`; without GSS only.
        plain: whether the cross-entropy is `plain_cross_entropy`; without GSS only.
        vote: hyper-parameters of the GSS loss.
    """

    fused: float = 1.0
    separate: float = 1.0
    auxiliary: float = 1.0
    gss: float = 0.0
    squares: bool = False
    plain: bool = False
    vote: GSSSettings = PUBLISHED_VOTE

    def __post_init__(self) -> None:
        for name in ("squares", "plain"):
            if getattr(self, name) and self.gss:
                raise ValueError(f"{name}: got True with a GSS weight of {self.gss}, need one or the other")


BASELINE = ObjectiveSettings()
"""The published objective of the baselines (RFNet, mmFormer)."""


def baseline_objective(options: TrainingOptions) -> ObjectiveSettings:
    """The objective of a stage without GSS."""
    return replace(BASELINE, squares=options.dice_denominator == "squares", plain=options.cross_entropy == "plain")


def gss_objective(options: SelfSupportOptions) -> ObjectiveSettings:
    """The objective of a stage with GSS (Qiu et al., ICCV 2023, training code)."""
    weight = options.gss_weight * options.temperature**2 / 10
    return ObjectiveSettings(separate=options.separate_weight, gss=weight, vote=options.settings())


GROUP_SELF_SUPPORT = gss_objective(SelfSupportOptions())
"""That of the paper."""


class ObjectiveTerms(NamedTuple):
    """The objective and its terms before weighting, scalars; terms that are not used are 0.

    Attributes:
        total: to minimise; the others have no gradient.
        fused: supervised loss of the fused prediction.
        separate: supervised losses of the modalities' own predictions, summed.
        auxiliary: supervised losses of the deep supervision's levels, summed.
        gss: the GSS loss.
        regulariser: the network's.
        statistics: of the vote, None unless asked for.
    """

    total: Tensor
    fused: Tensor
    separate: Tensor
    auxiliary: Tensor
    gss: Tensor
    regulariser: Tensor
    statistics: GSSStatistics | None = None

    def scalars(self) -> Tensor:
        """All but the statistics, in order, `[6]`, without gradient."""
        return torch.stack([term.detach() for term in self[:-1] if term is not None])


class Objective:
    """`fused + separate + auxiliary + gss`, weighted, plus the network's regulariser.

    Each of the first three is cross-entropy plus soft Dice, in the form that the settings say; `separate` and
    `auxiliary` are sums over modalities and levels.

    Args:
        groups: the category groups of the GSS loss.
        settings: weights of the terms and the like. With a GSS weight of 0 that loss is not computed.
        per_sample: every sample's objective by itself, and their mean, rather than as published with Dice losses over
            the whole batch. The mean over parts of a batch then is that of the batch.
        process_group: the Dice losses go over the batches of all its processes; None: of this one.
    """

    def __init__(
        self,
        groups: CategoryGroups,
        settings: ObjectiveSettings,
        *,
        per_sample: bool = False,
        process_group: ProcessGroup | None = None,
    ) -> None:
        self.groups = groups
        self.settings = settings
        self.per_sample = per_sample
        self.process_group = None if per_sample else process_group

    def __call__(
        self,
        output: SegmentationOutput,
        labels: Tensor,
        available: Tensor,
        seed: int,
        *,
        first_sample: int = 0,
        return_stats: bool = False,
    ) -> ObjectiveTerms:
        """Evaluate the objective.

        Args:
            output: of the network in training; without `auxiliary` or `separate`, these terms are 0.
            labels: `[B, D, H, W]` category indices, uint8 or int64.
            available: `[B, M]` bool, the scans that exist.
            seed: of the GSS loss's voxel mask.
            first_sample: number of the first of these samples in the batch that the mask is drawn for.
            return_stats: with the statistics of the vote, where there is one.

        Raises:
            ValueError: `output` lacks the per-modality predictions, and the GSS loss needs them.
        """
        if output.separate is None and self.settings.gss:
            raise ValueError("output: has no separate predictions, need them for the GSS loss; pass per_modality=True")
        if not self.per_sample:
            return self._evaluate(output, labels, available, seed, first_sample, return_stats=return_stats)
        return _mean(
            [
                self._evaluate(
                    _sample(output, number),
                    labels[number : number + 1],
                    available[number : number + 1],
                    seed,
                    first_sample + number,
                    return_stats=return_stats,
                )
                for number in range(len(labels))
            ]
        )

    def _evaluate(
        self,
        output: SegmentationOutput,
        labels: Tensor,
        available: Tensor,
        seed: int,
        first_sample: int,
        *,
        return_stats: bool,
    ) -> ObjectiveTerms:
        settings = self.settings
        zero = output.regulariser.new_zeros(())
        fused = self._supervise(output.fused, labels)
        auxiliary = zero
        for probabilities in output.auxiliary or ():
            auxiliary = auxiliary + self._supervise(probabilities, labels, input_kind="probabilities")
        if output.separate is not None and settings.gss:
            own = fused_gss_objective(
                output.separate,
                labels,
                self.groups,
                supervised_weight=settings.separate,
                gss_weight=settings.gss,
                **{**settings.vote._asdict(), **_voxel_mask(output.separate, seed, first_sample)},
                available=available,
                return_terms=True,
                return_stats=return_stats,
                process_group=self.process_group,
            )
            of_modalities, gss, statistics = own.total, own.gss, own.statistics
            separate = (own.cross_entropy + own.dice).sum()
        else:
            separate, gss, statistics = zero, zero, None
            own_predictions = () if output.separate is None else zip(output.separate, available.unbind(1), strict=True)
            for logits, exists in own_predictions:
                separate = separate + self._supervise(logits, labels, exists)
            of_modalities = settings.separate * separate
        total = settings.fused * fused + of_modalities + settings.auxiliary * auxiliary + output.regulariser
        return ObjectiveTerms(total, fused, separate, auxiliary, gss, output.regulariser, statistics)

    def _supervise(
        self, prediction: Tensor, labels: Tensor, available: Tensor | None = None, input_kind: InputKind = "logits"
    ) -> Tensor:
        settings, group = self.settings, self.process_group
        if not settings.squares or not settings.plain:
            cross_entropy, dice = fused_segmentation_loss(
                prediction, labels, input_kind=input_kind, available=available, process_group=group
            )
        if settings.squares or settings.plain:
            # The logarithms of probabilities are logits of theirs.
            logits = prediction if input_kind == "logits" else prediction.clamp(min=DICE_SMOOTHING).log()
        if settings.plain:
            cross_entropy = plain_cross_entropy(logits, labels, available, group)
        if settings.squares:
            dice = squared_dice(logits, labels, available, group)
        return cross_entropy + dice


def _voxel_mask(separate: tuple[Tensor, ...], seed: int, first_sample: int) -> dict[str, Any]:
    """The part that these samples have of the mask of the whole batch."""
    if first_sample == 0:
        return {"seed": seed}
    num_samples, _, *spatial = separate[0].shape
    keep = draw_voxel_mask(
        seed,
        num_samples=num_samples,
        num_modalities=len(separate),
        spatial=tuple(spatial),
        first_sample=first_sample,
        device=separate[0].device,
    )
    return {"voxel_mask": keep}


def _sample(output: SegmentationOutput, number: int) -> SegmentationOutput:
    """The output of one sample; the regulariser stays the batch's."""
    one = slice(number, number + 1)
    return SegmentationOutput(
        output.fused[one],
        None if output.separate is None else tuple(logits[one] for logits in output.separate),
        None if output.auxiliary is None else tuple(probabilities[one] for probabilities in output.auxiliary),
        output.regulariser,
    )


def _mean(terms: Sequence[ObjectiveTerms]) -> ObjectiveTerms:
    scalars = [torch.stack(values).mean() for values in zip(*(own[:-1] for own in terms), strict=True)]
    votes = [own.statistics for own in terms if own.statistics is not None]
    statistics = (
        GSSStatistics(*(torch.stack(parts).mean(dim=0) for parts in zip(*votes, strict=True))) if votes else None
    )
    return ObjectiveTerms._make([*scalars, statistics])
