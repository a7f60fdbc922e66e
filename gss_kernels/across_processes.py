"""Cross-entropy and Dice of the batches of several processes together.

A backend's passes see one process's batch. Cross-entropy and Dice are functions of a few sums, which the coefficients
of the backward pass tell; added up over the processes they give terms and coefficients of all batches. So the kernels
need not know of it, and no process waits for its device. Formulas: docs of `gss_kernels.fused_segmentation_loss`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from gss_kernels.autograd import by_hand
from gss_kernels.settings import DICE_SMOOTHING, Backend


def check_process_group(process_group: ProcessGroup | None, backend: Backend) -> None:
    """Raise ValueError unless `process_group` is None, or a group that the backend can add up over."""
    if process_group is None:
        return
    if not isinstance(process_group, ProcessGroup):
        raise ValueError(  # noqa: TRY004
            f"process_group: got {type(process_group).__name__}, need a torch.distributed.ProcessGroup that this "
            "process belongs to, or None"
        )
    if backend == "reference":
        raise ValueError("process_group: got a group with backend 'reference', need backend 'cpu' or 'triton', or None")
    if torch.compiler.is_compiling():
        raise ValueError(
            "process_group: got a group in a graph of torch.compile, need None there; without fullgraph=True the loss "
            "runs between graphs"
        )


@by_hand
def join_batches(terms: Tensor, coefficients: Tensor, process_group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """Terms and coefficients of all processes' batches from those of this one's.

    Args:
        terms: `[2, M]`, cross-entropy and Dice of each modality.
        coefficients: `[4, B, M, C]`, as in `GSSResults`.
        process_group: all its processes have to call this, as often as each other.

    Returns:
        Both in the same shapes and dtypes. NaN in one process's sums is NaN in every process's terms; a modality that
        no process has gets 0.
    """
    own = _Sums.of(terms, coefficients)
    every = own.over(process_group)
    C = coefficients.shape[3]
    denominator = every.mass + DICE_SMOOTHING
    counted = (coefficients[2] != 0).any(dim=2, keepdim=True)
    joined = coefficients.clone()
    joined[1] *= (own.voxels / every.voxels.clamp(min=1))[:, None]
    joined[2] = torch.where(counted, -2 / (C * denominator), 0)
    joined[3] = torch.where(counted, 2 * every.overlap / (C * denominator.square()), 0)
    return every.terms().to(terms.dtype), joined


@by_hand
def add_up(values: Tensor, process_group: ProcessGroup) -> Tensor:
    """The sum over the processes, a new tensor."""
    total = values.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total, group=process_group)
    return total


class _Sums(NamedTuple):
    """What cross-entropy and Dice are made of; in float64, as they are few.

    Attributes:
        cross_entropy: times the voxels, `[M]`.
        voxels: that count, `[M]`.
        overlap: `sum_{b,v} o * y`, `[M, C]`.
        mass: `sum_{b,v} o + sum_{b,v} y`, `[M, C]`.
    """

    cross_entropy: Tensor
    voxels: Tensor
    overlap: Tensor
    mass: Tensor

    @classmethod
    def of(cls, terms: Tensor, coefficients: Tensor) -> _Sums:
        """From one process's terms and coefficients; see `join_batches`."""
        C = coefficients.shape[3]
        # A sample's weights are `(1 - share_c) / voxels`, which add up to C - 1 of them; samples without a modality, and
        # without a voxel, have 0. A NaN is the largest.
        weights = coefficients[1].double().sum(dim=2).amax(dim=0)
        voxels = torch.where(weights != 0, (C - 1) / weights, 0)
        # The Dice's coefficients are alike in all samples that have the modality.
        at_label, everywhere = coefficients[2].double().amin(dim=0), coefficients[3].double().amax(dim=0)
        denominator = torch.where(at_label != 0, -2 / (C * at_label), DICE_SMOOTHING)
        return cls(
            cross_entropy=terms[0] * voxels,
            voxels=voxels,
            overlap=everywhere * denominator.square() * (C / 2),
            mass=denominator - DICE_SMOOTHING,
        )

    def over(self, process_group: ProcessGroup) -> _Sums:
        """Added up over the processes, in one message."""
        C = self.mass.shape[1]
        rows = torch.cat((self.cross_entropy[:, None], self.voxels[:, None], self.overlap, self.mass), dim=1)
        added = add_up(rows, process_group)
        return _Sums(added[:, 0], added[:, 1], added[:, 2 : 2 + C], added[:, 2 + C :])

    def terms(self) -> Tensor:
        """Cross-entropy and Dice, `[2, M]`."""
        dice = 1 - (2 * self.overlap / (self.mass + DICE_SMOOTHING)).mean(dim=1)
        counted = (self.voxels > 0) | self.voxels.isnan()
        return torch.stack((self.cross_entropy / self.voxels.clamp(min=1), torch.where(counted, dice, 0)))
