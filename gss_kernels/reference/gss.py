"""The GSS loss as a reader of the paper would write it: plain, differentiable, slow.

Source: Qiu et al., "Scratch Each Other's Back", ICCV 2023. Every quantity is materialised at full size; the fused
backends are checked against this one. Symbols in the code: B samples, M modalities, C categories, N voxels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gss_kernels.groups import CategoryGroups
from gss_kernels.inputs import GroupLogits, VoxelMask
from gss_kernels.philox import random_keep
from gss_kernels.settings import DistillationSettings, VoteSettings


def reference_loss(
    logits: GroupLogits,
    groups: CategoryGroups,
    vote: VoteSettings,
    distillation: DistillationSettings,
    mask: VoxelMask,
    available: Tensor | None,
) -> Tensor:
    """The loss, scalar or `[B, M]` by `distillation.reduction`; differentiable in the logits."""
    z, present = _flat_logits(logits, available)
    with torch.no_grad():
        target = _soft_targets(z, present, groups, vote)
        keep = _kept_voxels(logits, mask) & present[:, :, None] & _enough(present)[:, None, None]
        weight = _category_weights(target, keep, distillation.class_weighting)
    log_student = torch.log_softmax(z / vote.temperature, dim=2)
    # Not a maximum: a NaN has to stay NaN.
    log_student = torch.where(log_student < math.log(distillation.clamp), math.log(distillation.clamp), log_student)
    divergence = -target[:, None] * log_student
    if distillation.divergence == "kl":
        divergence = divergence + torch.special.xlogy(target, target)[:, None]
    # A selection, not a product: at a masked voxel not even a NaN may count.
    divergence = torch.where(keep[:, :, None], weight[..., None] * divergence, 0)
    loss = divergence.sum(dim=(2, 3)) / logits.num_voxels
    return loss if distillation.reduction == "none" else loss.sum(dim=1).mean()


@torch.no_grad()
def reference_soft_targets(
    logits: GroupLogits, groups: CategoryGroups, vote: VoteSettings, available: Tensor | None
) -> Tensor:
    """The soft target t, `[B, C, *spatial]`."""
    z, present = _flat_logits(logits, available)
    target = _soft_targets(z, present, groups, vote)
    return target.reshape(*target.shape[:2], *logits.spatial)


def _flat_logits(logits: GroupLogits, available: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits `[B, M, C, N]` with absent modalities set to 0, and who is present, `[B, M]`."""
    z = logits.as_stack().to(logits.compute_dtype).flatten(3)
    if available is None:
        return z, torch.ones(z.shape[:2], dtype=torch.bool, device=z.device)
    return torch.where(available[:, :, None, None], z, 0), available


def _enough(present: Tensor) -> Tensor:
    """Whether a sample has the two modalities it takes to teach each other, `[B]`."""
    return present.sum(dim=1) >= 2


def _soft_targets(z: Tensor, present: Tensor, groups: CategoryGroups, vote: VoteSettings) -> Tensor:
    """Every category's vote, normalised over the categories, `[B, C, N]`."""
    sharp = torch.softmax(z, dim=2)
    tempered = torch.softmax(z / vote.temperature, dim=2)
    votes = [
        _vote(sharp[:, :, category], tempered[:, :, category], present, leaders, vote)
        for category, leaders in enumerate(groups.leaders)
    ]
    unnormalised = torch.stack(votes, dim=1)
    total = unnormalised.sum(dim=1, keepdim=True)
    target = torch.where(total == 0, 0, unnormalised / total)
    return torch.where(_enough(present)[:, None, None], target, 0)


def _vote(sharp: Tensor, tempered: Tensor, present: Tensor, leaders: tuple[int, ...], vote: VoteSettings) -> Tensor:
    """One category's un-normalised target s, `[B, N]`, from its probabilities, `[B, M, N]`."""
    leads = torch.zeros_like(present)
    leads[:, list(leaders)] = True
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
    return torch.where(all_leaders, agreed, torch.where(some_leader, leaders_blend, by_members))


def _kept_voxels(logits: GroupLogits, mask: VoxelMask) -> Tensor:
    """The voxel mask k, `[B, M, N]` bool."""
    shape = (logits.num_samples, logits.num_modalities, logits.num_voxels)
    if mask.keep is not None:
        return mask.keep.reshape(shape)
    if mask.seed is None:
        return torch.ones(shape, dtype=torch.bool, device=logits.device)
    index = torch.arange(logits.num_samples * logits.num_voxels, device=logits.device)
    keep = random_keep(mask.seed, mask.ratio, logits.num_modalities, index)
    return keep.view(logits.num_modalities, logits.num_samples, logits.num_voxels).transpose(0, 1)


def _category_weights(target: Tensor, keep: Tensor, class_weighting: bool) -> Tensor:
    """W, `[B, M, C]`: one minus the category's share of the kept target."""
    if not class_weighting:
        return target.new_ones(*keep.shape[:2], target.shape[1])
    kept_target = torch.where(keep[:, :, None], target[:, None], 0).sum(dim=3)
    return 1 - kept_target / keep.sum(dim=2).clamp(min=1)[:, :, None]
