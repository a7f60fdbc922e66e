"""Cross-entropy and Dice of the batches of several processes together.

A backend's passes see one process's batch. Cross-entropy and Dice are functions of a few sums, which the coefficients
of the backward pass tell; added up over the processes they give terms and coefficients of all batches. So the kernels
need not know of it, and no process waits for its device. Formulas: docs of `gss_kernels.fused_segmentation_loss`.
"""

from __future__ import annotations

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
    C = coefficients.shape[3]
    own = _sums(terms, coefficients)
    every = add_up(own, process_group)
    cross_entropy, voxels, (overlap, mass) = every[0, :, 0], every[1, :, :1], every[2:]
    denominator = mass + DICE_SMOOTHING
    counted = (coefficients[2] != 0).any(dim=2, keepdim=True)
    joined = coefficients.clone()
    joined[1] *= own[1] / voxels.clamp(min=1)
    joined[2] = torch.where(counted, -2 / (C * denominator), 0)
    joined[3] = torch.where(counted, 2 * overlap / (C * denominator.square()), 0)
    dice = torch.where(voxels != 0, 1 - 2 * overlap / denominator, 0).mean(dim=1)
    return torch.stack((cross_entropy / voxels[:, 0].clamp(min=1), dice)).to(terms.dtype), joined


@by_hand
def add_up(values: Tensor, process_group: ProcessGroup) -> Tensor:
    """The sum over the processes, a new tensor."""
    total = values.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total, group=process_group)
    return total


def _sums(terms: Tensor, coefficients: Tensor) -> Tensor:
    """What cross-entropy and Dice are made of, `[4, M, C]` in float64, from one process's terms and coefficients.

    Cross-entropy times the voxels that count, and these, in each category; `sum_{b,v} o * y`;
    `sum_{b,v} o + sum_{b,v} y`.
    """
    C = coefficients.shape[3]
    # A sample's weights are `(1 - share_c) / voxels`, whose sum is `(C - 1) / voxels`; samples without the modality or
    # without a voxel have 0. A NaN is the largest.
    weights = coefficients[1].double().sum(dim=2).amax(dim=0)
    voxels = torch.where(weights != 0, (C - 1) / weights, 0)
    # The Dice's coefficients are alike in all samples that have the modality.
    at_label, everywhere = coefficients[2].double().amin(dim=0), coefficients[3].double().amax(dim=0)
    denominator = torch.where(at_label != 0, -2 / (C * at_label), DICE_SMOOTHING)
    overlap = everywhere * denominator.square() * (C / 2)
    counts = torch.stack((terms[0] * voxels, voxels))[:, :, None].expand(2, -1, C)
    return torch.cat((counts, torch.stack((overlap, denominator - DICE_SMOOTHING))))
