"""The CPU backend of the GSS loss: chunks of voxels that stay in cache, with a hand-written backward pass.

The forward pass keeps the students `q` in the buffer that the gradient will fill, and the soft target; the backward
pass turns the one into the gradient in place. Formulas: docs of `gss_kernels.fused_gss_loss`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gss_kernels.autograd import by_hand
from gss_kernels.gss.call import GSSCall, GSSResults, empty
from gss_kernels.gss.cpu_vote import (
    Chunk,
    Exponentials,
    bars_of,
    confident_voxels,
    every,
    exponentials_of,
    soft_target,
    some,
    without_nan,
)
from gss_kernels.segmentation.cpu import LabelledChunk, SegmentationSums, Slopes
from gss_kernels.settings import GSSSettings
from gss_kernels.tensors import GroupLogits, Inputs
from gss_kernels.voxel_mask import random_keep

# Measured on two cores with M=4, C=4 and 5. PyTorch gives a second thread only to more than 32,768 numbers, such as a
# modality's voxel mask; larger chunks fall out of the cache.
_CHUNK_VOXELS = 65_536


@by_hand
def forward(inputs: Inputs, call: GSSCall, *, keep: bool) -> tuple[Tensor, Tensor, Kept | None]:
    """The forward pass; keeps the students and the target for a first backward pass if it can."""
    logits, settings = inputs.logits, call.settings
    sums = _Sums.zeros(logits)
    segmentation = [SegmentationSums.zeros(logits) for _ in range(logits.shape[1])]
    kept = Kept.empty(inputs, settings) if keep else None
    views = _voxel_views(logits)
    for chunk in _chunks(inputs):
        exponentials = exponentials_of(_chunk_logits(views, chunk), settings)
        for row, labelled in enumerate(_labelled(chunk, exponentials.probabilities(), inputs, call)):
            segmentation[chunk.modalities[row]].add(labelled)
        exponentials, invalid = without_nan(exponentials)
        target, weight = _target_and_weight(inputs, exponentials, chunk, call)
        if chunk.learns:
            if call.statistics:
                sums.add_statistics(chunk, exponentials, target, call)
            sums.add(chunk, exponentials, target, weight, settings)
        if invalid is not None:
            # The count spoils weights and losses of the modalities that have kept a NaN, and of those alone.
            sums.kept[chunk.sample, chunk.modalities] += torch.where((weight * invalid).any(dim=1), math.nan, 0.0)
        if kept is not None:
            kept.store(chunk, _marked_students(exponentials, weight, inputs), target)
    return *_results(inputs, call, sums, segmentation), kept


@by_hand
def backward(inputs: Inputs, call: GSSCall, results: Tensor, upstream: Tensor, kept: Kept | None) -> tuple[Tensor, ...]:
    """The gradient, in the logits' form, under that of the value."""
    logits, settings, coefficients = inputs.logits, call.settings, GSSResults.of(results, inputs, call).coefficients
    per_loss = upstream if call.per_sample else upstream * (call.gss_weight / logits.shape[0])
    scale = per_loss.to(torch.float64) / (logits.num_voxels * settings.temperature)
    pulls = (scale.expand(coefficients.shape[1:3])[:, :, None] * coefficients[0]).to(logits.compute_dtype)
    slopes = coefficients[1:] * (upstream * call.supervised_weight if inputs.labels is not None else 0)
    gradients = kept.students if kept is not None else _gradient_buffers(logits)
    logit_views, gradient_views = _voxel_views(logits), _voxel_views(gradients)
    for chunk in _chunks(inputs):
        views = _chunk_views(gradient_views, chunk)
        if kept is not None:
            students, target = views, kept.target[chunk.sample, :, chunk.voxels]
            labelled = _labelled(chunk, (_sharp_softmax(student, settings) for student in students), inputs, call)
        else:
            exponentials = exponentials_of(_chunk_logits(logit_views, chunk), settings)
            labelled = _labelled(chunk, exponentials.probabilities(), inputs, call)
            cleaned, _ = without_nan(exponentials)
            target, weight = _target_and_weight(inputs, cleaned, chunk, call)
            students = _marked_students(cleaned, weight, inputs)
        for modality, student, view in zip(chunk.modalities, students, views, strict=True):
            segmentation = None
            if inputs.labels is not None:
                segmentation = Slopes(*slopes[:, :, modality]).gradient(next(labelled), are_logits=True)
            pull = torch.ge(student, settings.clamp, out=torch.empty_like(target)).mul_(target)
            pull.mul_(pulls[chunk.sample, modality][:, None])
            student.mul_(pull.sum(dim=0)).sub_(pull)
            if segmentation is not None:
                student.add_(segmentation)
            if student is not view:
                view.copy_(student)
    return gradients.tensors


@torch.no_grad()
def soft_targets(inputs: Inputs, call: GSSCall) -> Tensor:
    """The soft target t, `[B, C, *spatial]`."""
    logits = inputs.logits
    B, _, C = logits.shape
    target = torch.zeros(B, C, logits.num_voxels, dtype=logits.compute_dtype)
    views = _voxel_views(logits)
    for chunk in _chunks(inputs):
        exponentials, _ = without_nan(exponentials_of(_chunk_logits(views, chunk), call.settings))
        target[chunk.sample, :, chunk.voxels] = soft_target(exponentials, chunk, call)
    return target.reshape(B, C, *logits.spatial)


def _target_and_weight(
    inputs: Inputs, exponentials: Exponentials, chunk: Chunk, call: GSSCall
) -> tuple[Tensor, Tensor]:
    """The target `[C, n]` and the voxel mask `[m, n]`; all 0 where a sample does not learn."""
    if not chunk.learns:
        return torch.zeros_like(exponentials.student[0]), torch.zeros_like(exponentials.sharp_sum)
    return soft_target(exponentials, chunk, call), _weight(inputs, chunk, call.settings.mask_ratio)


def _chunks(inputs: Inputs) -> Iterator[Chunk]:
    """All chunks of all samples that have at least two modalities, or with labels one."""
    num_voxels = inputs.logits.num_voxels
    B, M, _ = inputs.logits.shape
    for sample in range(B):
        modalities = list(range(M))
        if inputs.available is not None:
            modalities = [m for m in modalities if bool(inputs.available[sample, m])]
        if len(modalities) < (2 if inputs.labels is None else 1):
            continue
        for start in range(0, num_voxels, _CHUNK_VOXELS):
            yield Chunk(sample, slice(start, min(start + _CHUNK_VOXELS, num_voxels)), modalities)


class _Sums(NamedTuple):
    """Sums over voxels: `kept` [B, M], `target` and `divergence` [B, M, C]; by route [C, 4], of agreement [M]."""

    kept: Tensor
    target: Tensor
    divergence: Tensor
    routes: Tensor
    agreement: Tensor

    @classmethod
    def zeros(cls, logits: GroupLogits) -> _Sums:
        """Nothing summed yet. In float64, as a volume has millions of voxels and the sums cost nothing."""
        B, M, C = logits.shape
        return cls(*(torch.zeros(s, dtype=torch.float64) for s in ((B, M), (B, M, C), (B, M, C), (C, 4), M)))

    def add(
        self, chunk: Chunk, exponentials: Exponentials, target: Tensor, weight: Tensor, settings: GSSSettings
    ) -> None:
        """Add a chunk; overwrites `student_log`."""
        divergence = exponentials.student_log.clamp_(min=math.log(settings.clamp))
        if settings.divergence == "kl":
            log_target = target.clamp(min=torch.finfo(target.dtype).tiny).log_()
            divergence = divergence.sub_(log_target)
        divergence = divergence.mul_(target)
        rows = (chunk.sample, chunk.modalities)
        self.kept[rows] += weight.sum(dim=1)
        self.target[rows] += weight @ target.T
        self.divergence[rows] -= torch.einsum("mn,mcn->mc", weight, divergence)

    def add_statistics(self, chunk: Chunk, exponentials: Exponentials, target: Tensor, call: GSSCall) -> None:
        """Count a chunk's voxels by route, and where student and target prefer the same category."""
        bars = bars_of(exponentials, call.settings)
        nobody = torch.zeros_like(target[0])
        for category, indices in enumerate(call.leaders):
            leaders, members = confident_voxels(exponentials, chunk, category, indices, bars)
            one, agree = (some(leaders), every(leaders)) if leaders else (nobody, nobody)
            decide = every(members) * (1 - one) if members else nobody
            taken = (agree, one - agree, decide, 1 - one - decide)
            self.routes[category] += torch.stack([route.sum(dtype=torch.float64) for route in taken])
        same = (exponentials.student.argmax(dim=1) == target.argmax(dim=0)) & (target.amax(dim=0) > 0)
        self.agreement[chunk.modalities] += same.sum(dim=1)

    def weights(self, class_weighting: bool) -> Tensor:
        """W, `[B, M, C]`."""
        if not class_weighting:
            return torch.ones_like(self.target)
        return 1 - self.target / self.kept.clamp(min=1)[:, :, None]


def _weight(inputs: Inputs, chunk: Chunk, mask_ratio: float) -> Tensor:
    """The voxel mask of the chunk's modalities, `[m, n]`, 1 where kept, else 0."""
    logits, count = inputs.logits, chunk.voxels.stop - chunk.voxels.start
    if inputs.keep is not None:
        return inputs.keep[chunk.sample].flatten(1)[chunk.modalities, chunk.voxels].to(logits.compute_dtype)
    if inputs.seed is None:
        return torch.ones(len(chunk.modalities), count, dtype=logits.compute_dtype)
    first = chunk.sample * logits.num_voxels + chunk.voxels.start
    keep = random_keep(inputs.seed, mask_ratio, logits.shape[1], first, count, logits.compute_dtype)
    return keep if len(chunk.modalities) == len(keep) else keep[chunk.modalities]


class Kept(NamedTuple):
    """What the forward pass hands to a first backward pass, which turns it into the gradient."""

    students: GroupLogits  # in the logits' form, negative where masked; they become the gradient
    target: Tensor  # `[B, C, N]`

    @classmethod
    def empty(cls, inputs: Inputs, settings: GSSSettings) -> Kept | None:
        """Room for all chunks; None where recomputing is better.

        Half-precision students would lose digits. The segmentation losses need their powers, which only some
        temperatures make cheap.
        """
        logits = inputs.logits
        if logits.dtype != logits.compute_dtype or (inputs.labels is not None and not settings.squarings):
            return None
        B, _, C = logits.shape
        target = torch.zeros(B, C, logits.num_voxels, dtype=logits.compute_dtype)
        return cls(_gradient_buffers(logits), target)

    def store(self, chunk: Chunk, students: list[Tensor], target: Tensor) -> None:
        """Keep a chunk: its students, `m` times `[C, n]`, and target `[C, n]`."""
        views = _chunk_views(_voxel_views(self.students), chunk)
        for view, student in zip(views, students, strict=True):
            view.copy_(student)
        self.target[chunk.sample, :, chunk.voxels] = target


def _marked_students(exponentials: Exponentials, weight: Tensor, inputs: Inputs) -> list[Tensor]:
    """Students, `m` times `[C, n]`, below the clamp where masked, so that these do not learn; overwrites them.

    With labels, for which they are needed there too, they turn negative; else they are 0.
    """
    factor = weight if inputs.labels is None else 2 * weight - 1
    return list(exponentials.student.mul_(factor[:, None]).unbind())


def _labelled(chunk: Chunk, probabilities: Iterable[Tensor], inputs: Inputs, call: GSSCall) -> Iterator[LabelledChunk]:
    """With labels, the probabilities `[C, n]` of each of the chunk's modalities next to them."""
    if inputs.labels is None:
        return
    labels = inputs.labels[chunk.sample].flatten()[chunk.voxels]
    for own in probabilities:
        yield LabelledChunk.of(chunk.sample, own, labels, call.ignore_index)


def _sharp_softmax(student: Tensor, settings: GSSSettings) -> Tensor:
    """The softmax at temperature 1, `[C, n]`, from that at temperature `2**squarings`, whatever its sign."""
    sharp = student.square()
    for _ in range(settings.squarings - 1):
        sharp.square_()
    return sharp.div_(sharp.sum(dim=0))


def _results(inputs: Inputs, call: GSSCall, sums: _Sums, segmentation: list[SegmentationSums]) -> tuple[Tensor, Tensor]:
    """From sums to value and results."""
    value, buffer = empty(inputs, call)
    results = GSSResults.of(buffer, inputs, call)
    weights = sums.weights(call.settings.class_weighting)
    losses = (weights * sums.divergence).sum(dim=2) / inputs.logits.num_voxels
    mean = losses.sum(dim=1).mean()
    total = call.gss_weight * mean
    results.coefficients[0] = weights
    results.terms[-1] = mean
    if inputs.labels is not None:
        terms = torch.stack([torch.stack(own.terms()) for own in segmentation], dim=1)
        total = total + call.supervised_weight * terms.sum()
        results.terms[:-1] = terms.flatten()
        for modality, own in enumerate(segmentation):
            for kind, values in enumerate(Slopes.of(own), start=1):
                results.coefficients[kind, :, modality] = values
    if call.statistics:
        present = torch.ones(losses.shape, dtype=torch.bool) if inputs.available is None else inputs.available
        learning = present & (present.sum(dim=1, keepdim=True) >= 2)
        voxels = inputs.logits.num_voxels
        results.routes.copy_(sums.routes / (learning.any(dim=1).sum().clamp(min=1) * voxels))
        results.agreement.copy_(sums.agreement / (learning.sum(dim=0).clamp(min=1) * voxels))
    value.copy_(losses if call.per_sample else total)
    return value, buffer


def _gradient_buffers(logits: GroupLogits) -> GroupLogits:
    return GroupLogits(tuple(torch.zeros(own.shape, dtype=own.dtype) for own in logits.tensors), logits.stacked)


def _voxel_views(logits: GroupLogits) -> tuple[Tensor, ...]:
    """M tensors `[B, C, N]`; a view wherever the spatial axes can be joined, as in every dense layout."""
    return tuple(tensor.flatten(2) for tensor in logits.per_modality())


def _chunk_views(views: tuple[Tensor, ...], chunk: Chunk) -> list[Tensor]:
    """The chunk of each present modality, `[C, n]`."""
    return [views[modality][chunk.sample, :, chunk.voxels] for modality in chunk.modalities]


def _chunk_logits(views: tuple[Tensor, ...], chunk: Chunk) -> Tensor:
    """`[m, C, n]`, in the dtype of the computation."""
    logits = torch.stack(_chunk_views(views, chunk))
    return logits if logits.dtype == torch.float64 else logits.float()
