"""The GSS loss as a reader of the paper would write it: plain, differentiable, slow.

Source: Qiu et al., "Scratch Each Other's Back", ICCV 2023. Every quantity is materialised at full size; the fused
backends are checked against this one. Symbols in the code: B samples, M modalities, C categories, N voxels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gss_kernels.gss.call import GSSCall, GSSResults, empty
from gss_kernels.segmentation import reference as segmentation_reference
from gss_kernels.segmentation.call import SegmentationCall
from gss_kernels.settings import GSSSettings
from gss_kernels.tensors import GroupLogits, Inputs
from gss_kernels.voxel_mask import random_keep

Leaders = tuple[tuple[int, ...], ...]


def loss(inputs: Inputs, call: GSSCall) -> tuple[Tensor, Tensor]:
    """The value, differentiable by autograd, and the other results, of which coefficients are not computed."""
    z, present = _flat_logits(inputs)
    with torch.no_grad():
        target, routes = _soft_targets(z, present, call.leaders, call.settings)
        keep = _kept_voxels(inputs, call.settings.mask_ratio) & present[:, :, None] & _enough(present)[:, None, None]
    losses = _distillation(z, target, keep, call.settings)
    mean = losses.sum(dim=1).mean()
    total, terms = call.gss_weight * mean, mean.detach()[None]
    if inputs.labels is not None:
        segmentation = torch.stack(_segmentation(inputs, call, present), dim=1)
        total = total + call.supervised_weight * segmentation.sum()
        terms = torch.cat((segmentation.detach().flatten(), terms))
    _, buffer = empty(inputs, call)
    results = GSSResults.of(buffer, inputs, call)
    results.terms.copy_(terms)
    if call.statistics:
        for own, computed in zip(
            (results.routes, results.agreement), _statistics(z, target, routes, present), strict=True
        ):
            own.copy_(computed)
    return losses if call.per_sample else total, buffer


def _segmentation(inputs: Inputs, call: GSSCall, present: Tensor) -> list[Tensor]:
    """Cross-entropy and Dice of each modality, M times `[2]`."""
    assert inputs.labels is not None
    own_call = SegmentationCall(from_logits=True, ignore_index=call.ignore_index)
    return [
        torch.stack(segmentation_reference.loss(own, inputs.labels, own_call, available))
        for own, available in zip(inputs.logits.per_modality(), present.unbind(1), strict=True)
    ]


@torch.no_grad()
def soft_targets(inputs: Inputs, call: GSSCall) -> Tensor:
    """The soft target t, `[B, C, *spatial]`."""
    z, present = _flat_logits(inputs)
    target, _ = _soft_targets(z, present, call.leaders, call.settings)
    return target.reshape(*target.shape[:2], *inputs.logits.spatial)


def _distillation(z: Tensor, target: Tensor, keep: Tensor, settings: GSSSettings) -> Tensor:
    """l, `[B, M]`."""
    weight = _category_weights(target, keep, settings.class_weighting)
    log_student = torch.log_softmax(z / settings.temperature, dim=2)
    # Not a maximum: a NaN has to stay NaN.
    log_student = torch.where(log_student < math.log(settings.clamp), math.log(settings.clamp), log_student)
    divergence = -target[:, None] * log_student
    if settings.divergence == "kl":
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


def _flat_logits(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Logits `[B, M, C, N]` with absent modalities set to 0, and who is present, `[B, M]`."""
    z = torch.stack(inputs.logits.per_modality(), dim=1).to(inputs.logits.compute_dtype).flatten(3)
    if inputs.available is None:
        return z, torch.ones(z.shape[:2], dtype=torch.bool, device=z.device)
    return torch.where(inputs.available[:, :, None, None], z, 0), inputs.available


def _enough(present: Tensor) -> Tensor:
    """Whether a sample has the two modalities it takes to teach each other, `[B]`."""
    return present.sum(dim=1) >= 2


def _soft_targets(z: Tensor, present: Tensor, leaders: Leaders, settings: GSSSettings) -> tuple[Tensor, Tensor]:
    """Every category's vote, normalised over the categories, and the routes they took, both `[B, C, N]`."""
    sharp = torch.softmax(z, dim=2)
    tempered = torch.softmax(z / settings.temperature, dim=2)
    votes = [
        _vote(sharp[:, :, category], tempered[:, :, category], present, own, settings)
        for category, own in enumerate(leaders)
    ]
    unnormalised = torch.stack([vote for vote, _ in votes], dim=1)
    routes = torch.stack([route for _, route in votes], dim=1)
    total = unnormalised.sum(dim=1, keepdim=True)
    target = torch.where(total == 0, 0, unnormalised / total)
    return torch.where(_enough(present)[:, None, None], target, 0), routes


def _vote(
    sharp: Tensor, tempered: Tensor, present: Tensor, leaders: tuple[int, ...], settings: GSSSettings
) -> tuple[Tensor, Tensor]:
    """One category's un-normalised target s, and its route as an index into `ROUTES`, both `[B, N]`.

    From its probabilities, `[B, M, N]`.
    """
    leads = torch.zeros_like(present)
    for modality in leaders:
        leads[:, modality] = True
    leader, member = (present & leads)[:, :, None], (present & ~leads)[:, :, None]
    leaders_present, members_present = leader.sum(dim=1), member.sum(dim=1)

    confident_leader = leader & (sharp > settings.leader_threshold)
    some_leader = confident_leader.any(dim=1)
    all_leaders = some_leader & (confident_leader == leader).all(dim=1)
    confident_member = member & (sharp > settings.member_threshold)
    all_members = (members_present > 0) & (confident_member == member).all(dim=1)

    leaders_max = torch.where(leader, tempered, -math.inf).amax(dim=1)
    leaders_min = torch.where(leader, tempered, math.inf).amin(dim=1)
    leaders_blend = leaders_max - settings.leader_blend * (leaders_max - leaders_min)
    members_mean = torch.where(member, tempered, 0).sum(dim=1) / members_present.clamp(min=1)
    minimum = torch.where(present[:, :, None], tempered, math.inf).amin(dim=1)

    agreed = leaders_max
    if settings.semantics == "released":
        agreed = torch.where(leaders_present >= 2, leaders_max + leaders_blend, leaders_max)
        members_mean = torch.where(leaders_present == 1, 0, members_mean)
    by_members = torch.where(all_members, members_mean, minimum)
    result = torch.where(all_leaders, agreed, torch.where(some_leader, leaders_blend, by_members))
    route = torch.where(all_leaders, 0, torch.where(some_leader, 1, torch.where(all_members, 2, 3)))
    return result, route


def _kept_voxels(inputs: Inputs, mask_ratio: float) -> Tensor:
    """The voxel mask k, `[B, M, N]` bool."""
    logits: GroupLogits = inputs.logits
    (B, M, _), N = logits.shape, logits.num_voxels
    if inputs.keep is not None:
        return inputs.keep.reshape(B, M, N)
    if inputs.seed is None:
        return torch.ones((B, M, N), dtype=torch.bool, device=logits.device)
    return random_keep(inputs.seed, mask_ratio, M, 0, B * N).view(M, B, N).transpose(0, 1)


def _category_weights(target: Tensor, keep: Tensor, class_weighting: bool) -> Tensor:
    """W, `[B, M, C]`: one minus the category's share of the kept target."""
    if not class_weighting:
        return target.new_ones(*keep.shape[:2], target.shape[1])
    kept_target = torch.where(keep[:, :, None], target[:, None], 0).sum(dim=3)
    return 1 - kept_target / keep.sum(dim=2).clamp(min=1)[:, :, None]
