"""The CPU backend: the loss in chunks of voxels that stay in cache, with a hand-written backward pass.

The forward pass keeps the masked students `q` in the buffer that the gradient will fill, and the soft target; the
backward pass turns the one into the gradient in place. Formulas: docs of `gss_kernels.fused_gss_loss`.
"""

from __future__ import annotations

import functools
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

# Measured on two cores with M=4, C=4: below it the cost of calls shows, above it a single thread runs out of cache.
_CHUNK_VOXELS = 32_768


def cpu_loss(
    logits: GroupLogits,
    groups: CategoryGroups,
    vote: VoteSettings,
    distillation: DistillationSettings,
    mask: VoxelMask,
    available: Tensor | None,
) -> Tensor:
    """The loss, scalar or `[B, M]` by `distillation.reduction`."""
    call = _Call(groups, vote, distillation, mask, available)
    keep_students = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in logits.tensors)
    loss: Tensor = _ChunkedLoss.apply(call, logits.stacked, keep_students, *logits.tensors)  # type: ignore[no-untyped-call]
    return loss if distillation.reduction == "none" else loss.sum(dim=1).mean()


@torch.no_grad()
def cpu_soft_targets(
    logits: GroupLogits, groups: CategoryGroups, vote: VoteSettings, available: Tensor | None
) -> Tensor:
    """The soft target t, `[B, C, *spatial]`."""
    call = _Call(groups, vote, DistillationSettings(), VoxelMask(), available)
    target = torch.zeros(
        logits.num_samples, logits.num_categories, logits.num_voxels, dtype=logits.compute_dtype, device=logits.device
    )
    views = _voxel_views(logits)
    for chunk in call.chunks(logits):
        exponentials = _exponentials(_chunk_logits(views, chunk), vote)
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
    """`[m, C, n]` for the m present modalities; the sums over C are `[m, n]`.

    `student_log` is `log q`, `student` is `q`; `sharp / sharp_sum` would be `p`.
    """

    sharp: Tensor
    sharp_sum: Tensor
    student_log: Tensor
    student: Tensor


@dataclass(frozen=True)
class _Call:
    """What a call has besides its logits, which autograd alone keeps, and frees after the backward pass."""

    groups: CategoryGroups
    vote: VoteSettings
    distillation: DistillationSettings
    mask: VoxelMask
    available: Tensor | None

    def chunks(self, logits: GroupLogits) -> Iterator[_Chunk]:
        """All chunks of all samples that have at least two modalities."""
        num_voxels = logits.num_voxels
        for sample in range(logits.num_samples):
            modalities = list(range(logits.num_modalities))
            if self.available is not None:
                modalities = [m for m in modalities if bool(self.available[sample, m])]
            if len(modalities) < 2:
                continue
            for start in range(0, num_voxels, _CHUNK_VOXELS):
                yield _Chunk(sample, slice(start, min(start + _CHUNK_VOXELS, num_voxels)), modalities)

    def keep(self, logits: GroupLogits, chunk: _Chunk) -> Tensor | None:
        """The voxel mask of the chunk's modalities, `[m, n]` bool; None where all is kept."""
        if self.mask.keep is not None:
            return self.mask.keep[chunk.sample].flatten(1)[chunk.modalities, chunk.voxels]
        if self.mask.seed is None:
            return None
        first = chunk.sample * logits.num_voxels
        index = torch.arange(first + chunk.voxels.start, first + chunk.voxels.stop)
        return random_keep(self.mask.seed, self.mask.ratio, logits.num_modalities, index)[chunk.modalities]


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

    `students` become the gradient in place at the first backward pass; they and `target` are gone for a second one,
    which recomputes them. Half-precision students would lose digits, so those are always recomputed.
    """

    weights: Tensor
    target: Tensor | None = None
    students: tuple[Tensor, ...] | None = field(default=None, repr=False)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, stacked: bool, keep_students: bool, *tensors: Tensor) -> Tensor:
        logits = GroupLogits(tensors, stacked)
        views = _voxel_views(logits)
        sums = _Sums.zeros(logits)
        students = _gradient_buffers(logits) if keep_students and logits.dtype == logits.compute_dtype else None
        student_views = _voxel_views(GroupLogits(students, logits.stacked)) if students is not None else None
        target = None
        if students is not None:
            shape = (logits.num_samples, logits.num_categories, logits.num_voxels)
            target = torch.zeros(shape, dtype=logits.compute_dtype)
        for chunk in call.chunks(logits):
            exponentials = _exponentials(_chunk_logits(views, chunk), call.vote)
            chunk_target = _soft_target(exponentials, chunk, call.groups, call.vote)
            keep = call.keep(logits, chunk)
            _accumulate(sums, chunk, exponentials, chunk_target, keep, call.distillation)
            if student_views is not None and target is not None:
                target[chunk.sample, :, chunk.voxels] = chunk_target
                for view, student in zip(
                    _chunk_views(student_views, chunk), _masked(exponentials.student, keep), strict=True
                ):
                    view.copy_(student)
        weights = sums.weights(call.distillation.class_weighting)
        ctx.call, ctx.stacked, ctx.num_tensors = call, stacked, len(tensors)
        ctx.saved = _Saved(weights, target, students)
        # The other tensors are saved too: PyTorch then notices if they are changed in place before the backward pass.
        ctx.save_for_backward(*tensors, *call.mask.tensors(), *optional(call.available))
        return ((weights * sums.divergence).sum(dim=2) / logits.num_voxels).to(logits.compute_dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors[: ctx.num_tensors]
        with torch.no_grad():
            results = _gradients(ctx.call, ctx.saved, GroupLogits(tensors, ctx.stacked), gradient)
        return (None, None, None, *differentiable_once(results, gradient, *tensors))


def _gradients(call: _Call, saved: _Saved, logits: GroupLogits, upstream: Tensor) -> tuple[Tensor, ...]:
    """The gradient of the loss `[B, M]` in the logits' form, chunk by chunk."""
    scale = upstream.to(torch.float64)[:, :, None] / (logits.num_voxels * call.vote.temperature)
    coefficients = (scale * saved.weights).to(logits.compute_dtype)
    students, kept_target = saved.students, saved.target
    saved.students = saved.target = None
    results = students if students is not None else _gradient_buffers(logits)
    logit_views, result_views = _voxel_views(logits), _voxel_views(GroupLogits(results, logits.stacked))
    for chunk in call.chunks(logits):
        views = _chunk_views(result_views, chunk)
        if students is not None and kept_target is not None:
            chunk_students, target = views, kept_target[chunk.sample, :, chunk.voxels]
        else:
            exponentials = _exponentials(_chunk_logits(logit_views, chunk), call.vote)
            target = _soft_target(exponentials, chunk, call.groups, call.vote)
            chunk_students = list(_masked(exponentials.student, call.keep(logits, chunk)))
        for modality, student, view in zip(chunk.modalities, chunk_students, views, strict=True):
            pull = coefficients[chunk.sample, modality][:, None] * target
            pull.masked_fill_(student < call.distillation.clamp, 0)
            student.mul_(pull.sum(dim=0)).sub_(pull)
            if student is not view:
                view.copy_(student)
    return results


def _gradient_buffers(logits: GroupLogits) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(tensor.shape, dtype=tensor.dtype) for tensor in logits.tensors)


def _voxel_views(logits: GroupLogits) -> tuple[Tensor, ...]:
    """M tensors `[B, C, N]`; a view wherever the spatial axes can be joined, as in every dense layout."""
    return tuple(tensor.flatten(2) for tensor in logits.per_modality())


def _chunk_views(views: tuple[Tensor, ...], chunk: _Chunk) -> list[Tensor]:
    """The chunk of each present modality, `[C, n]`."""
    return [views[modality][chunk.sample, :, chunk.voxels] for modality in chunk.modalities]


def _chunk_logits(views: tuple[Tensor, ...], chunk: _Chunk) -> Tensor:
    """`[m, C, n]`, a contiguous copy in the dtype of the computation."""
    logits = torch.stack(_chunk_views(views, chunk))
    return logits if logits.dtype == torch.float64 else logits.float()


def _masked(student: Tensor, keep: Tensor | None) -> Tensor:
    """Students with 0 at masked voxels: below the clamp, so that the gradient vanishes there."""
    return student if keep is None else student.masked_fill_(~keep[:, None], 0)


def _exponentials(z: Tensor, vote: VoteSettings) -> _Exponentials:
    """Overwrites z."""
    shifted = z.sub_(z.amax(dim=1, keepdim=True))
    student_log = shifted / vote.temperature
    student = student_log.exp()
    if vote.squarings:
        # A power of the tempered exponential is cheaper than another exponential.
        sharp = torch.mul(student, student, out=shifted)
        for _ in range(vote.squarings - 1):
            sharp.square_()
    else:
        sharp = shifted.exp_()
    student_sum = student.sum(dim=1, keepdim=True)
    return _Exponentials(
        sharp=sharp,
        sharp_sum=sharp.sum(dim=1),
        student_log=student_log.sub_(student_sum.log()),
        student=student.div_(student_sum),
    )


def _soft_target(exponentials: _Exponentials, chunk: _Chunk, groups: CategoryGroups, vote: VoteSettings) -> Tensor:
    """Soft target of the chunk, `[C, n]`."""
    # Without division: p > tau is e > tau * sum(e).
    leader_bars = (vote.leader_threshold * exponentials.sharp_sum).unbind()
    member_bars = (vote.member_threshold * exponentials.sharp_sum).unbind()
    minimum = exponentials.student.amin(dim=0)
    target = torch.empty_like(minimum)
    for category, indices in enumerate(groups.leaders):
        sharp, student = exponentials.sharp[:, category].unbind(), exponentials.student[:, category].unbind()
        leaders = [row for row, modality in enumerate(chunk.modalities) if modality in indices]
        members = [row for row in range(len(chunk.modalities)) if row not in leaders]
        by_members = _members_vote(
            [sharp[row] > member_bars[row] for row in members],
            [student[row] for row in members],
            minimum[category],
            counts=vote.semantics == "paper" or len(leaders) != 1,
        )
        target[category] = _leaders_vote(
            [sharp[row] > leader_bars[row] for row in leaders], [student[row] for row in leaders], by_members, vote
        )
    total = target.sum(dim=0)
    return target.div_(total.masked_fill_(total == 0, 1))


def _members_vote(confident: list[Tensor], students: list[Tensor], minimum: Tensor, *, counts: bool) -> Tensor:
    """What the members decide, `[n]`: where all are confident their mean, 0 if it does not count; else the minimum."""
    if not students:
        return minimum
    mean = functools.reduce(torch.add, students) / len(students) if counts else minimum.new_zeros(())
    return torch.where(functools.reduce(torch.logical_and, confident), mean, minimum)


def _leaders_vote(confident: list[Tensor], students: list[Tensor], otherwise: Tensor, vote: VoteSettings) -> Tensor:
    """What the leaders decide where one is confident at least, `[n]`; `otherwise` elsewhere."""
    if not students:
        return otherwise
    if len(students) == 1:
        return torch.where(confident[0], students[0], otherwise)
    highest = functools.reduce(torch.maximum, students)
    lowest = functools.reduce(torch.minimum, students)
    blend = torch.lerp(highest, lowest, vote.leader_blend)
    agreed = highest + blend if vote.semantics == "released" else highest
    result = torch.where(functools.reduce(torch.logical_or, confident), blend, otherwise)
    return torch.where(functools.reduce(torch.logical_and, confident), agreed, result)


def _accumulate(
    sums: _Sums,
    chunk: _Chunk,
    exponentials: _Exponentials,
    target: Tensor,
    keep: Tensor | None,
    distillation: DistillationSettings,
) -> None:
    """Add the chunk to the sums; overwrites `student_log`."""
    # clamp_ keeps NaN.
    cross = exponentials.student_log.clamp_(min=math.log(distillation.clamp)).mul_(target)
    entropy = torch.special.xlogy(target, target) if distillation.divergence == "kl" else torch.zeros_like(target)
    weight = target.new_ones(cross.shape[::2]) if keep is None else keep.to(target.dtype)
    rows = (chunk.sample, chunk.modalities)
    sums.kept[rows] += weight.sum(dim=1)
    sums.target[rows] += _weighted_sum(weight, target)
    sums.divergence[rows] += _weighted_sum(weight, entropy) - _weighted_sum(weight, cross)


def _weighted_sum(weight: Tensor, values: Tensor) -> Tensor:
    """`sum_n weight * values`, `[m, C]`, of values `[C, n]` or `[m, C, n]`; a NaN of weight 0 does not count."""
    result = _multiply(weight, values)
    if not bool(result.isnan().any()):
        return result
    invalid = values.isnan()
    return _multiply(weight, values.masked_fill(invalid, 0)).masked_fill_(
        _multiply(weight, invalid.to(weight.dtype)) > 0, math.nan
    )


def _multiply(weight: Tensor, values: Tensor) -> Tensor:
    return weight @ values.T if values.dim() == 2 else torch.bmm(values, weight[:, :, None]).squeeze(2)
