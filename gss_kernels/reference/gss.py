"""The GSS loss as a reader of the paper would write it: plain, differentiable, slow.

Source: Qiu et al., "Scratch Each Other's Back", ICCV 2023. Every quantity is materialised at full size; the fused
backends are checked against this one. Symbols in the code: B samples, M modalities, C categories, N voxels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gss_kernels.call import GroupCall, GroupResults
from gss_kernels.groups import CategoryGroups
from gss_kernels.inputs import GroupLogits, VoxelMask
from gss_kernels.philox import random_keep
from gss_kernels.reference.segmentation import reference_segmentation_loss
from gss_kernels.settings import DistillationSettings, VoteSettings


def reference_group_loss(logits: GroupLogits, call: GroupCall) -> GroupResults:
    """The losses, differentiable by autograd; see `GroupResults`. Coefficients are not needed and left empty."""
    z, present = _flat_logits(logits, call.available)
    with torch.no_grad():
        target, routes = _soft_targets(z, present, call.groups, call.vote)
        keep = _kept_voxels(logits, call.mask) & present[:, :, None] & _enough(present)[:, None, None]
    losses = _distillation(z, target, keep, call.vote, call.distillation)
    mean = losses.sum(dim=1).mean()
    total, terms = mean, mean.detach()[None]
    if call.supervision is not None:
        supervised = torch.stack(
            [
                torch.stack(reference_segmentation_loss(own, call.supervision.labels, "logits", available))
                for own, available in zip(logits.per_modality(), present.unbind(1), strict=True)
            ],
            dim=1,
        )
        total = call.supervised_weight * supervised.sum() + call.gss_weight * mean
        terms = torch.cat((supervised.detach().flatten(), terms))
    empty = losses.new_empty(0)
    shares, agreement = _statistics(z, target, routes, present) if call.statistics else (empty, empty)
    return GroupResults(total, losses, terms, empty, shares, agreement)


@torch.no_grad()
def reference_soft_targets(
    logits: GroupLogits, groups: CategoryGroups, vote: VoteSettings, available: Tensor | None
) -> Tensor:
    """The soft target t, `[B, C, *spatial]`."""
    z, present = _flat_logits(logits, available)
    target, _ = _soft_targets(z, present, groups, vote)
    return target.reshape(*target.shape[:2], *logits.spatial)


def _distillation(
    z: Tensor, target: Tensor, keep: Tensor, vote: VoteSettings, distillation: DistillationSettings
) -> Tensor:
    """l, `[B, M]`."""
    weight = _category_weights(target, keep, distillation.class_weighting)
    log_student = torch.log_softmax(z / vote.temperature, dim=2)
    # Not a maximum: a NaN has to stay NaN.
    log_student = torch.where(log_student < math.log(distillation.clamp), math.log(distillation.clamp), log_student)
    divergence = -target[:, None] * log_student
    if distillation.divergence == "kl":
        divergence = divergence + torch.special.xlogy(target, target)[:, None]
    # A selection, not a product: at a masked voxel not even a NaN may count.
    divergence = torch.where(keep[:, :, None], weight[..., None] * divergence, 0)
    return divergence.sum(dim=(2, 3)) / z.shape[3]


def _statistics(z: Tensor, target: Tensor, routes: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the voxels by route `[C, 4]` and of agreement `[M]`; samples that do not learn are left out."""
    learning = present & _enough(present)[:, None]
    samples = _enough(present).sum().clamp(min=1)
    kinds = torch.arange(4, device=z.device)
    taken = (routes[:, :, None] == kinds[:, None]) & _enough(present)[:, None, None, None]
    shares = taken.sum(dim=(0, 3), dtype=z.dtype) / (samples * z.shape[3])
    same = (z.argmax(dim=2) == target.argmax(dim=1)[:, None]) & (target.amax(dim=1) > 0)[:, None] & learning[:, :, None]
    agreement = same.sum(dim=(0, 2), dtype=z.dtype) / (learning.sum(dim=0).clamp(min=1) * z.shape[3])
    return shares, agreement


def _flat_logits(logits: GroupLogits, available: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits `[B, M, C, N]` with absent modalities set to 0, and who is present, `[B, M]`."""
    z = logits.as_stack().to(logits.compute_dtype).flatten(3)
    if available is None:
        return z, torch.ones(z.shape[:2], dtype=torch.bool, device=z.device)
    return torch.where(available[:, :, None, None], z, 0), available


def _enough(present: Tensor) -> Tensor:
    """Whether a sample has the two modalities it takes to teach each other, `[B]`."""
    return present.sum(dim=1) >= 2


def _soft_targets(z: Tensor, present: Tensor, groups: CategoryGroups, vote: VoteSettings) -> tuple[Tensor, Tensor]:
    """Every category's vote, normalised over the categories, and the routes they took, both `[B, C, N]`."""
    sharp = torch.softmax(z, dim=2)
    tempered = torch.softmax(z / vote.temperature, dim=2)
    votes = [
        _vote(sharp[:, :, category], tempered[:, :, category], present, leaders, vote)
        for category, leaders in enumerate(groups.leaders)
    ]
    unnormalised = torch.stack([vote for vote, _ in votes], dim=1)
    routes = torch.stack([route for _, route in votes], dim=1)
    total = unnormalised.sum(dim=1, keepdim=True)
    target = torch.where(total == 0, 0, unnormalised / total)
    return torch.where(_enough(present)[:, None, None], target, 0), routes


def _vote(
    sharp: Tensor, tempered: Tensor, present: Tensor, leaders: tuple[int, ...], vote: VoteSettings
) -> tuple[Tensor, Tensor]:
    """One category's un-normalised target s, and its route as an index into `ROUTES`, both `[B, N]`.

    From its probabilities, `[B, M, N]`.
    """
    leads = torch.zeros_like(present)
    for modality in leaders:
        leads[:, modality] = True
    leader, member = (present & leads)[:, :, None], (present & ~leads)[:, :, None]
    leaders_present, members_present = leader.sum(dim=1), member.sum(dim=1)

    confident_leader = leader & (sharp > vote.leader_threshold)
    some_leader = confident_leader.any(dim=1)
    all_leaders = some_leader & (confident_leader == leader).all(dim=1)
    confident_member = member & (sharp > vote.member_threshold)
    all_members = (members_present > 0) & (confident_member == member).all(dim=1)

    leaders_max = torch.where(leader, tempered, -math.inf).amax(dim=1)
    leaders_min = torch.where(leader, tempered, math.inf).amin(dim=1)
    leaders_blend = leaders_max - vote.leader_blend * (leaders_max - leaders_min)
    members_mean = torch.where(member, tempered, 0).sum(dim=1) / members_present.clamp(min=1)
    minimum = torch.where(present[:, :, None], tempered, math.inf).amin(dim=1)

    agreed = leaders_max
    if vote.semantics == "released":
        agreed = torch.where(leaders_present >= 2, leaders_max + leaders_blend, leaders_max)
        members_mean = torch.where(leaders_present == 1, 0, members_mean)
    by_members = torch.where(all_members, members_mean, minimum)
    result = torch.where(all_leaders, agreed, torch.where(some_leader, leaders_blend, by_members))
    route = torch.where(all_leaders, 0, torch.where(some_leader, 1, torch.where(all_members, 2, 3)))
    return result, route


def _kept_voxels(logits: GroupLogits, mask: VoxelMask) -> Tensor:
    """The voxel mask k, `[B, M, N]` bool."""
    shape = (logits.num_samples, logits.num_modalities, logits.num_voxels)
    if mask.keep is not None:
        return mask.keep.reshape(shape)
    if mask.seed is None:
        return torch.ones(shape, dtype=torch.bool, device=logits.device)
    keep = random_keep(mask.seed, mask.ratio, logits.num_modalities, 0, logits.num_samples * logits.num_voxels)
    return keep.view(logits.num_modalities, logits.num_samples, logits.num_voxels).transpose(0, 1)


def _category_weights(target: Tensor, keep: Tensor, class_weighting: bool) -> Tensor:
    """W, `[B, M, C]`: one minus the category's share of the kept target."""
    if not class_weighting:
        return target.new_ones(*keep.shape[:2], target.shape[1])
    kept_target = torch.where(keep[:, :, None], target[:, None], 0).sum(dim=3)
    return 1 - kept_target / keep.sum(dim=2).clamp(min=1)[:, :, None]
