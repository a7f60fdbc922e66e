"""The CPU backend: the loss in chunks of voxels that stay in cache, with a hand-written backward pass.

The forward pass keeps the masked students `q` in the buffer that the gradient will fill, and the soft target; the
backward pass turns the one into the gradient in place. Formulas: docs of `gss_kernels.fused_gss_loss`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gss_kernels.autograd import differentiable_once
from gss_kernels.groups import CategoryGroups
from gss_kernels.inputs import GroupLogits, VoxelMask, optional
from gss_kernels.philox import random_keep
from gss_kernels.settings import DistillationSettings, VoteSettings

# Measured on two cores with M=4, C=4: below it the cost of a call shows, above it a chunk leaves the L2 cache.
_CHUNK_VOXELS = 16_384


def cpu_loss(
    logits: GroupLogits,
    groups: CategoryGroups,
    vote: VoteSettings,
    distillation: DistillationSettings,
    mask: VoxelMask,
    available: Tensor | None,
) -> Tensor:
    """The loss, scalar or `[B, M]` by `distillation.reduction`."""
    call = _Call(logits, groups, vote, distillation, mask, available)
    keep_students = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in logits.tensors)
    loss: Tensor = _ChunkedLoss.apply(call, keep_students, *logits.tensors)  # type: ignore[no-untyped-call]
    return loss if distillation.reduction == "none" else loss.sum(dim=1).mean()


@torch.no_grad()
def cpu_soft_targets(
    logits: GroupLogits, groups: CategoryGroups, vote: VoteSettings, available: Tensor | None
) -> Tensor:
    """The soft target t, `[B, C, *spatial]`."""
    call = _Call(logits, groups, vote, DistillationSettings(), VoxelMask(), available)
    target = torch.zeros(
        logits.num_samples, logits.num_categories, logits.num_voxels, dtype=logits.compute_dtype, device=logits.device
    )
    views = _voxel_views(logits)
    for chunk in call.chunks():
        exponentials = _exponentials(_chunk_logits(views, chunk), vote.temperature)
        target[chunk.sample, :, chunk.voxels] = _soft_target(exponentials, chunk, groups, vote)
    return target.reshape(logits.num_samples, logits.num_categories, *logits.spatial)


@dataclass(frozen=True)
class _Chunk:
    """Some voxels of one sample and the modalities it has."""

    sample: int
    voxels: slice
    modalities: list[int]


@dataclass(frozen=True)
class _Exponentials:
    """`[m, C, n]` for the m present modalities; the sums over C are `[m, 1, n]`.

    `student_log` is `log q`, `student` is `q`; `sharp / sharp_sum` would be `p`.
    """

    sharp: Tensor
    sharp_sum: Tensor
    student_log: Tensor
    student: Tensor


@dataclass(frozen=True)
class _Call:
    """What stays the same over all chunks of a call."""

    logits: GroupLogits
    groups: CategoryGroups
    vote: VoteSettings
    distillation: DistillationSettings
    mask: VoxelMask
    available: Tensor | None

    def chunks(self) -> Iterator[_Chunk]:
        """All chunks of all samples that have at least two modalities."""
        num_voxels = self.logits.num_voxels
        for sample in range(self.logits.num_samples):
            modalities = list(range(self.logits.num_modalities))
            if self.available is not None:
                modalities = [m for m in modalities if bool(self.available[sample, m])]
            if len(modalities) < 2:
                continue
            for start in range(0, num_voxels, _CHUNK_VOXELS):
                yield _Chunk(sample, slice(start, min(start + _CHUNK_VOXELS, num_voxels)), modalities)

    def keep(self, chunk: _Chunk) -> Tensor | None:
        """The voxel mask of the chunk's modalities, `[m, n]` bool; None where all is kept."""
        if self.mask.keep is not None:
            return self.mask.keep[chunk.sample].flatten(1)[chunk.modalities, chunk.voxels]
        if self.mask.seed is None:
            return None
        first = chunk.sample * self.logits.num_voxels
        index = torch.arange(first + chunk.voxels.start, first + chunk.voxels.stop)
        return random_keep(self.mask.seed, self.mask.ratio, self.logits.num_modalities, index)[chunk.modalities]


@dataclass
class _Sums:
    """Sums over a sample's voxels: `kept` [B, M], `target` and `divergence` [B, M, C]."""

    kept: Tensor
    target: Tensor
    divergence: Tensor

    @classmethod
    def zeros(cls, logits: GroupLogits) -> _Sums:
        """Nothing summed yet. In float64, as a volume has millions of voxels and the sums cost nothing."""
        shape = (logits.num_samples, logits.num_modalities, logits.num_categories)
        return cls(*(torch.zeros(s, dtype=torch.float64) for s in (shape[:2], shape, shape)))

    def weights(self, class_weighting: bool) -> Tensor:
        """W, `[B, M, C]`."""
        if not class_weighting:
            return torch.ones_like(self.target)
        return 1 - self.target / self.kept.clamp(min=1)[:, :, None]


@dataclass
class _Saved:
    """What the forward pass hands to the backward pass besides the logits.

    `students` become the gradient in place at the first backward pass, and are gone for the second one, which
    recomputes them. Half-precision students would lose digits, so those are always recomputed.
    """

    weights: Tensor
    target: Tensor | None = None
    students: tuple[Tensor, ...] | None = field(default=None, repr=False)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, keep_students: bool, *tensors: Tensor) -> Tensor:
        logits = call.logits
        views = _voxel_views(logits)
        sums = _Sums.zeros(logits)
        students = _gradient_buffers(logits) if keep_students and logits.dtype == logits.compute_dtype else None
        student_views = _voxel_views(GroupLogits(students, logits.stacked)) if students is not None else None
        target = None
        if students is not None:
            shape = (logits.num_samples, logits.num_categories, logits.num_voxels)
            target = torch.zeros(shape, dtype=logits.compute_dtype)
        for chunk in call.chunks():
            exponentials = _exponentials(_chunk_logits(views, chunk), call.vote.temperature)
            chunk_target = _soft_target(exponentials, chunk, call.groups, call.vote)
            keep = call.keep(chunk)
            _accumulate(sums, chunk, exponentials, chunk_target, keep, call.distillation)
            if student_views is not None and target is not None:
                target[chunk.sample, :, chunk.voxels] = chunk_target
                _store(student_views, chunk, _masked(exponentials.student, keep))
        weights = sums.weights(call.distillation.class_weighting)
        ctx.call = call
        ctx.saved = _Saved(weights, target, students)
        # The other tensors are saved too: PyTorch then notices if they are changed in place before the backward pass.
        ctx.save_for_backward(*tensors, *call.mask.tensors(), *optional(call.available))
        return ((weights * sums.divergence).sum(dim=2) / logits.num_voxels).to(logits.compute_dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors[: len(ctx.call.logits.tensors)]
        with torch.no_grad():
            results = _gradients(ctx.call, ctx.saved, GroupLogits(tensors, ctx.call.logits.stacked), gradient)
        return (None, None, *differentiable_once(results, gradient, *tensors))


def _gradients(call: _Call, saved: _Saved, logits: GroupLogits, upstream: Tensor) -> tuple[Tensor, ...]:
    """The gradient of the loss `[B, M]` in the logits' form, chunk by chunk."""
    scale = upstream.to(torch.float64)[:, :, None] / (logits.num_voxels * call.vote.temperature)
    coefficients = (scale * saved.weights).to(logits.compute_dtype)
    students, saved.students = saved.students, None
    results = students if students is not None else _gradient_buffers(logits)
    logit_views, result_views = _voxel_views(logits), _voxel_views(GroupLogits(results, logits.stacked))
    for chunk in call.chunks():
        if students is not None and saved.target is not None:
            student = _chunk_logits(result_views, chunk)
            target = saved.target[chunk.sample, :, chunk.voxels]
        else:
            exponentials = _exponentials(_chunk_logits(logit_views, chunk), call.vote.temperature)
            target = _soft_target(exponentials, chunk, call.groups, call.vote)
            student = _masked(exponentials.student, call.keep(chunk))
        pull = coefficients[chunk.sample, chunk.modalities][:, :, None] * target
        pull.masked_fill_(~(student >= call.distillation.clamp), 0)
        _store(result_views, chunk, student.mul(pull.sum(dim=1, keepdim=True)).sub_(pull))
    return results


def _gradient_buffers(logits: GroupLogits) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(tensor.shape, dtype=tensor.dtype) for tensor in logits.tensors)


def _voxel_views(logits: GroupLogits) -> tuple[Tensor, ...]:
    """M tensors `[B, C, N]`; a view wherever the spatial axes can be joined, as in every dense layout."""
    return tuple(tensor.flatten(2) for tensor in logits.per_modality())


def _chunk_logits(views: tuple[Tensor, ...], chunk: _Chunk) -> Tensor:
    """`[m, C, n]`, a contiguous copy."""
    return torch.stack([views[modality][chunk.sample, :, chunk.voxels] for modality in chunk.modalities])


def _store(views: tuple[Tensor, ...], chunk: _Chunk, values: Tensor) -> None:
    for modality, value in zip(chunk.modalities, values, strict=True):
        views[modality][chunk.sample, :, chunk.voxels] = value


def _masked(student: Tensor, keep: Tensor | None) -> Tensor:
    """Students with 0 at masked voxels: below the clamp, so that the gradient vanishes there."""
    return student if keep is None else student.masked_fill_(~keep[:, None], 0)


def _exponentials(z: Tensor, temperature: float) -> _Exponentials:
    z = z if z.dtype == torch.float64 else z.float()
    shifted = z.sub_(z.amax(dim=1, keepdim=True))
    tempered_log = shifted / temperature
    tempered = tempered_log.exp()
    if temperature in (2.0, 4.0, 8.0, 16.0):
        sharp = tempered.square()
        for _ in range(int(math.log2(temperature)) - 1):
            sharp.square_()
    else:
        sharp = shifted.exp_()
    tempered_sum = tempered.sum(dim=1, keepdim=True)
    return _Exponentials(
        sharp=sharp,
        sharp_sum=sharp.sum(dim=1, keepdim=True),
        student_log=tempered_log.sub_(tempered_sum.log()),
        student=tempered.div_(tempered_sum),
    )


def _soft_target(exponentials: _Exponentials, chunk: _Chunk, groups: CategoryGroups, vote: VoteSettings) -> Tensor:
    """Soft target of the chunk, `[C, n]`. Without division: `p > tau` is `e > tau * sum(e)`."""
    leader_bar = vote.leader_threshold * exponentials.sharp_sum
    member_bar = vote.member_threshold * exponentials.sharp_sum
    confident_leaders = exponentials.sharp > leader_bar
    confident_members = exponentials.sharp > member_bar
    minimum = exponentials.student.amin(dim=0)
    target = torch.empty_like(minimum)
    for category, leaders in enumerate(groups.leaders):
        rows = [row for row, modality in enumerate(chunk.modalities) if modality in leaders]
        others = [row for row in range(len(chunk.modalities)) if row not in rows]
        target[category] = _vote(
            exponentials.student[:, category],
            confident_leaders[:, category],
            confident_members[:, category],
            minimum[category],
            rows,
            others,
            vote,
        )
    total = target.sum(dim=0)
    return target.div_(total.masked_fill_(total == 0, 1))


def _vote(
    student: Tensor,
    confident_leaders: Tensor,
    confident_members: Tensor,
    minimum: Tensor,
    leaders: list[int],
    members: list[int],
    vote: VoteSettings,
) -> Tensor:
    """One category's un-normalised target s, `[n]`, from the rows of its leaders and members."""
    result = minimum
    released = vote.semantics == "released"
    if members:
        mean = student[members].sum(dim=0).mul_(1 / len(members))
        if released and len(leaders) == 1:
            mean = torch.zeros_like(mean)
        result = torch.where(confident_members[members].all(dim=0), mean, result)
    if len(leaders) == 1:
        return torch.where(confident_leaders[leaders[0]], student[leaders[0]], result)
    if leaders:
        lowest, highest = student[leaders].aminmax(dim=0)
        blend = highest - vote.leader_blend * (highest - lowest)
        agreed = highest + blend if released else highest
        result = torch.where(confident_leaders[leaders].any(dim=0), blend, result)
        result = torch.where(confident_leaders[leaders].all(dim=0), agreed, result)
    return result


def _accumulate(
    sums: _Sums,
    chunk: _Chunk,
    exponentials: _Exponentials,
    target: Tensor,
    keep: Tensor | None,
    distillation: DistillationSettings,
) -> None:
    floor = math.log(distillation.clamp)
    student_log = exponentials.student_log
    # clamp_ would keep NaN as well, but only by PyTorch's choice; the comparison says what is meant.
    student_log.masked_fill_(student_log < floor, floor)
    divergence = student_log.neg_().mul_(target)
    if distillation.divergence == "kl":
        divergence.add_(torch.special.xlogy(target, target))
    kept_target = target.expand(len(chunk.modalities), -1, -1)
    if keep is not None:
        # Selections, not products: at a masked voxel not even a NaN may count.
        divergence.masked_fill_(~keep[:, None], 0)
        kept_target = kept_target.masked_fill(~keep[:, None], 0)
        kept = keep.sum(dim=1)
    else:
        kept = torch.full((len(chunk.modalities),), target.shape[1])
    sums.kept[chunk.sample, chunk.modalities] += kept
    sums.target[chunk.sample, chunk.modalities] += kept_target.sum(dim=2)
    sums.divergence[chunk.sample, chunk.modalities] += divergence.sum(dim=2)
