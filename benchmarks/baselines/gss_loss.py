"""The GSS loss as it is published, step by step, and as one would write it in vectorised PyTorch.

Source of the steps: Qiu et al., ICCV 2023, and its public training code (GitHub qysgithubopen/GSS), rewritten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import and_, or_

import torch
from torch import Tensor

from gss_kernels import CategoryGroups

_CLAMP = 0.005

Positions = tuple[Tensor, ...]
"""Index tensors into `[B, C, D, H, W]`, one per axis."""


def published_steps_loss(
    logits: Tensor,
    groups: CategoryGroups,
    *,
    keep: Tensor | None = None,
    temperature: float = 8.0,
    leader_threshold: float = 0.75,
    member_threshold: float = 0.85,
    leader_blend: float = 0.3,
    mask_ratio: float = 0.2,
) -> Tensor:
    """The loss in the public code's steps: semantics "released", divergence "cross_entropy", reduction "mean".

    Every category and modality has masks and copies of full size. Copies that the public code makes and never reads
    are left out; leaders and members may be any number.

    Args:
        logits: `[B, M, C, D, H, W]`; computed in float32.
        groups: the leaders of every category.
        keep: `[B, M, D, H, W]` bool, true where kept; None draws positions as `drawn_positions`.
        temperature: T.
        leader_threshold: tau_L.
        member_threshold: tau_M.
        leader_blend: beta.
        mask_ratio: positions drawn per voxel.

    Returns:
        The loss, a float32 scalar.
    """
    separate = logits.float().unbind(1)
    students = [torch.softmax(z / temperature, dim=1) for z in separate]
    with torch.no_grad():
        sharp = [torch.softmax(z, dim=1) for z in separate]
        votes = [
            _published_vote(
                [p[:, category : category + 1].clone() for p in sharp],
                [q[:, category : category + 1].clone() for q in students],
                leaders,
                (leader_threshold, member_threshold, leader_blend),
            )
            for category, leaders in enumerate(groups.leaders)
        ]
        total = reduce(torch.add, votes)
        target = torch.cat([vote / total for vote in votes], dim=1)
    loss = logits.new_zeros((), dtype=torch.float32)
    for modality, student in enumerate(students):
        if keep is None:
            masked = drawn_positions(student.shape, mask_ratio)
        else:
            masked = (~keep[:, modality, None]).expand(student.shape).nonzero(as_tuple=True)
        zero = student.new_zeros(())
        kept_target = target.index_put([index.to(target.device) for index in masked], zero)
        kept_student = student.index_put([index.to(target.device) for index in masked], zero)
        loss = loss + _weighted_cross_entropy(kept_student, kept_target)
    return loss


def drawn_positions(shape: Sequence[int], mask_ratio: float) -> Positions:
    """Voxels to mask, drawn on the CPU with replacement: `int(D*H*W*mask_ratio)` a sample, the same in all categories.

    Args:
        shape: `(B, C, D, H, W)`.
        mask_ratio: positions per voxel.

    Returns:
        Five int64 index tensors.
    """
    num_samples, num_categories, *spatial = shape
    count = int(spatial[0] * spatial[1] * spatial[2] * mask_ratio)
    positions = torch.empty(5, 0, dtype=torch.int64)
    for sample in range(num_samples):
        voxel = [torch.randint(length, (count,)) for length in spatial]
        for category in range(num_categories):
            rows = [torch.full((count,), sample), torch.full((count,), category), *voxel]
            positions = torch.cat([positions, torch.stack(rows)], dim=1)
    return positions.unbind(0)


def _published_vote(
    sharp: list[Tensor], tempered: list[Tensor], leaders: tuple[int, ...], settings: tuple[float, float, float]
) -> Tensor:
    """One category's un-normalised target from the modalities' probabilities, all `[B, 1, D, H, W]`."""
    leader_threshold, member_threshold, leader_blend = settings
    members = [m for m in range(len(sharp)) if m not in leaders]
    confident = [sharp[m] > leader_threshold for m in leaders]
    some, every = reduce(or_, confident), reduce(and_, confident)

    vote = _stacked([_blanked(tempered[m], ~every) for m in leaders]).amax(dim=1, keepdim=True)
    if len(leaders) > 1:
        split = _stacked([_blanked(tempered[m], ~some) for m in leaders])
        largest, smallest = split.amax(dim=1, keepdim=True), split.amin(dim=1, keepdim=True)
        vote = vote + (largest - leader_blend * (largest - smallest))

    agreed = torch.zeros_like(some)
    if members:
        agreed = reduce(and_, [_blanked(sharp[m], some) > member_threshold for m in members])
        # With one leader the public code blanks the wrong side here, so that nothing is left of the members.
        elsewhere = ~some if len(leaders) == 1 else some
        opinions = [_blanked(_blanked(tempered[m], elsewhere), ~agreed) for m in members]
        vote = vote + reduce(torch.add, opinions) / len(members)
    undecided = _stacked([_blanked(_blanked(q, some), agreed) for q in tempered])
    return vote + undecided.amin(dim=1, keepdim=True)


def _blanked(values: Tensor, where: Tensor) -> Tensor:
    copy = values.clone()
    copy[where] = 0
    return copy


def _stacked(maps: list[Tensor]) -> Tensor:
    return torch.cat(maps, dim=1)


def _weighted_cross_entropy(student: Tensor, target: Tensor) -> Tensor:
    """Category by category, each weighted by one minus its share of the target; `[B, C, D, H, W]` to a scalar."""
    total = target.sum(dim=(1, 2, 3, 4))
    loss = torch.zeros_like(target[:, 0])
    for category in range(target.shape[1]):
        wanted = target[:, category]
        weight = (1 - wanted.sum(dim=(1, 2, 3)) / total)[:, None, None, None].repeat(1, *wanted.shape[1:])
        loss = loss - weight * wanted * torch.log(student[:, category].clamp(min=_CLAMP, max=1))
    return loss.mean()


def eager_loss(
    logits: Tensor,
    groups: CategoryGroups,
    *,
    keep: Tensor | None = None,
    temperature: float = 8.0,
    leader_threshold: float = 0.75,
    member_threshold: float = 0.85,
    leader_blend: float = 0.3,
    mask_ratio: float = 0.2,
) -> Tensor:
    """The loss vectorised over samples, modalities and voxels: semantics "paper", divergence "kl", reduction "mean".

    Args:
        logits: `[B, M, C, *spatial]`; computed in float32.
        groups: the leaders of every category.
        keep: `[B, M, *spatial]` bool, true where kept; None draws it.
        temperature: T.
        leader_threshold: tau_L.
        member_threshold: tau_M.
        leader_blend: beta.
        mask_ratio: probability of masking a voxel.

    Returns:
        The loss, a float32 scalar.
    """
    z = logits.float().flatten(3)
    log_student = torch.log_softmax(z / temperature, dim=2)
    settings = (leader_threshold, member_threshold, leader_blend)
    with torch.no_grad():
        target = _eager_target(torch.softmax(z, dim=2), log_student.exp(), groups, settings)
        if keep is None:
            keep = torch.rand(z.shape[:2] + z.shape[3:], device=z.device) >= mask_ratio
        kept = keep.flatten(2)[:, :, None].to(z.dtype)
        log_target = target.clamp(min=torch.finfo(target.dtype).tiny).log()[:, None]
        kept_target = kept * target[:, None]
        share = kept_target.sum(dim=3) / kept.sum(dim=3).clamp(min=1)
    divergence = kept_target * (log_target - log_student.clamp(min=math.log(_CLAMP)))
    return torch.sum((1 - share) * divergence.mean(dim=3)) / z.shape[0]


def _eager_target(
    sharp: Tensor, tempered: Tensor, groups: CategoryGroups, settings: tuple[float, float, float]
) -> Tensor:
    """The soft target `[B, C, N]` from the modalities' probabilities, both `[B, M, C, N]`."""
    votes = [
        _eager_vote(sharp[:, :, category], tempered[:, :, category], leaders, settings)
        for category, leaders in enumerate(groups.leaders)
    ]
    target = torch.stack(votes, dim=1)
    return target / target.sum(dim=1, keepdim=True).clamp(min=torch.finfo(target.dtype).tiny)


def _eager_vote(
    sharp: Tensor, tempered: Tensor, leaders: tuple[int, ...], settings: tuple[float, float, float]
) -> Tensor:
    """One category's un-normalised target `[B, N]` from the modalities' probabilities, both `[B, M, N]`."""
    leader_threshold, member_threshold, leader_blend = settings
    members = [m for m in range(sharp.shape[1]) if m not in leaders]
    leading = tempered[:, list(leaders)]
    confident = sharp[:, list(leaders)] > leader_threshold
    largest = leading.amax(dim=1)

    vote = tempered.amin(dim=1)
    if members:
        agreed = (sharp[:, members] > member_threshold).all(dim=1)
        vote = torch.where(agreed, tempered[:, members].mean(dim=1), vote)
    if len(leaders) > 1:
        blend = largest - leader_blend * (largest - leading.amin(dim=1))
        vote = torch.where(confident.any(dim=1), blend, vote)
    return torch.where(confident.all(dim=1), largest, vote)
