"""One call of the group loss: what every backend takes besides the logits, and what it returns."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.distributed import ProcessGroup

from gss_kernels.groups import CategoryGroups
from gss_kernels.inputs import GroupLogits, VoxelMask
from gss_kernels.settings import DistillationSettings, VoteSettings


@dataclass(frozen=True)
class Supervision:
    """The supervised loss that goes with the GSS loss.

    Attributes:
        labels: `[B, *spatial]` category indices, uint8 or int64.
        supervised_weight: of the sum over modalities of cross-entropy and Dice in the total.
        gss_weight: of the GSS loss in the total.
        process_group: whose batches together are supervised; None: this process's alone.
    """

    labels: Tensor
    supervised_weight: float
    gss_weight: float
    process_group: ProcessGroup | None = None


@dataclass(frozen=True)
class GroupCall:
    """Checked arguments but the logits, which autograd alone keeps, and frees after the backward pass.

    Attributes:
        groups: the leaders of every category.
        vote: how the target is voted.
        distillation: how students are drawn towards it.
        mask: which voxels a modality keeps.
        available: `[B, M]` bool, None where every sample has every modality.
        supervision: None for the GSS loss alone.
        statistics: whether to count routes and agreement.
    """

    groups: CategoryGroups
    vote: VoteSettings
    distillation: DistillationSettings
    mask: VoxelMask
    available: Tensor | None = None
    supervision: Supervision | None = None
    statistics: bool = False

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Its tensors: seed, given mask, `available`, labels."""
        labels = None if self.supervision is None else self.supervision.labels
        return self.mask.seed, self.mask.keep, self.available, labels

    def with_tensors(
        self, seed: Tensor | None, keep: Tensor | None, available: Tensor | None, labels: Tensor | None
    ) -> GroupCall:
        """The same call with other tensors, empty ones say, which take no memory."""
        supervision = self.supervision
        if supervision is not None and labels is not None:
            supervision = dataclasses.replace(supervision, labels=labels)
        mask = dataclasses.replace(self.mask, seed=seed, keep=keep)
        return dataclasses.replace(self, mask=mask, available=available, supervision=supervision)

    def without_memory(self) -> GroupCall:
        """The same call with empty tensors."""
        return self.with_tensors(*(None if own is None else own.new_empty(0) for own in self.tensors()))

    @property
    def gss_weight(self) -> float:
        """Of the GSS loss in the total."""
        return 1.0 if self.supervision is None else self.supervision.gss_weight

    @property
    def supervised_weight(self) -> float:
        """Of the supervised loss in the total."""
        return 0.0 if self.supervision is None else self.supervision.supervised_weight

    @property
    def process_group(self) -> ProcessGroup | None:
        """Whose batches together are supervised; None: this process's alone."""
        return None if self.supervision is None else self.supervision.process_group


class GroupResults(NamedTuple):
    """What a forward pass gives; empty tensors for what was not asked for.

    Attributes:
        total: scalar, the GSS loss's mean, or with supervision the weighted sum of all.
        losses: `[B, M]`, the GSS loss before reduction.
        terms: `[2 M + 1]`: cross-entropy and Dice of each modality, then the GSS loss's mean; without supervision the
            latter alone.
        coefficients: `[1 or 4, B, M, C]`, what the backward pass needs: the category weights W; with supervision the
            weight of the cross-entropy, and alpha and beta of the Dice's derivative `alpha_c y_c + beta_c`.
        routes: `[C, 4]`, share of the voxels that took each route.
        agreement: `[M]`, share of the voxels where modality and target prefer the same category.
    """

    total: Tensor
    losses: Tensor
    terms: Tensor
    coefficients: Tensor
    routes: Tensor
    agreement: Tensor


def empty_results(logits: GroupLogits, like: Tensor, *, supervised: bool, statistics: bool) -> GroupResults:
    """Uninitialised results, in the dtype and on the device of `like`."""
    B, M, C = logits.num_samples, logits.num_modalities, logits.num_categories
    return GroupResults(
        total=like.new_empty(()),
        losses=like.new_empty((B, M)),
        terms=like.new_empty(2 * M + 1 if supervised else 1),
        coefficients=like.new_empty((4 if supervised else 1, B, M, C)),
        routes=like.new_empty((C, 4) if statistics else 0),
        agreement=like.new_empty(M if statistics else 0),
    )
