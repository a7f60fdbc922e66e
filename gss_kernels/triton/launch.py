"""From checked tensors to kernel launches, and autograd."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from gss_kernels.autograd import differentiable_once
from gss_kernels.groups import CategoryGroups
from gss_kernels.inputs import GroupLogits, VoxelMask, optional
from gss_kernels.philox import last_masked_word
from gss_kernels.settings import DistillationSettings, VoteSettings
from gss_kernels.triton.layout import Volumes, addressable, empty_gradients
from gss_kernels.triton.loss import backward_kernel, finish_kernel, forward_kernel, target_kernel
from gss_kernels.triton.vote import KEEP_ALL, KEEP_DRAWN, KEEP_GIVEN

# Two voxels a thread make 64-bit loads of float32 logits, and five categories of four modalities do not spill.
BLOCK_VOXELS = 256
# Newer versions of Triton ask for a decision on fused multiply-add; the kernels want it.
COMPILE_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}
FINISH_CHUNK = 64
# Twice as many as the forward kernel's registers let reside at a time; not tuned on a GPU yet.
_PROGRAMS_PER_MULTIPROCESSOR = 4


def triton_loss(
    logits: GroupLogits,
    groups: CategoryGroups,
    vote: VoteSettings,
    distillation: DistillationSettings,
    mask: VoxelMask,
    available: Tensor | None,
) -> Tensor:
    """The loss, scalar or `[B, M]` by `distillation.reduction`."""
    logits = addressable(logits)
    call = _Call(logits.stacked, groups, vote, distillation, mask, available)
    loss: Tensor = _FusedLoss.apply(call, *logits.tensors)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def triton_soft_targets(
    logits: GroupLogits, groups: CategoryGroups, vote: VoteSettings, available: Tensor | None
) -> Tensor:
    """The soft target t, `[B, C, *spatial]`."""
    logits = addressable(logits)
    call = _Call(logits.stacked, groups, vote, DistillationSettings(), VoxelMask(), available)
    volumes = Volumes.of(logits)
    target = torch.empty(
        (logits.num_samples, logits.num_categories, *logits.spatial), dtype=torch.float32, device=logits.device
    )
    with _on_device_of(target):
        target_kernel[_blocks(volumes), volumes.num_samples](
            volumes.tensors,
            *volumes.strides,
            call.available_bytes(target),
            target,
            volumes.num_voxels,
            *call.vote_arguments(),
            **call.vote_constants(volumes),
            BLOCK=BLOCK_VOXELS,
            **COMPILE_OPTIONS,
        )
    return target


def leader_bits(groups: CategoryGroups, num_modalities: int) -> int:
    """Leader sets as one number: bit `c * M + m` says that modality m leads category c."""
    return sum(1 << (c * num_modalities + m) for c, leaders in enumerate(groups.leaders) for m in leaders)


@dataclass(frozen=True)
class _Call:
    """What a call has besides its logits, in the kernels' terms."""

    stacked: bool
    groups: CategoryGroups
    vote: VoteSettings
    distillation: DistillationSettings
    mask: VoxelMask
    available: Tensor | None

    def vote_arguments(self) -> tuple[float, float, float, float]:
        """log2_scale, leader_threshold, member_threshold, leader_blend."""
        vote = self.vote
        log2_scale = math.log2(math.e) / vote.temperature
        return log2_scale, vote.leader_threshold, vote.member_threshold, vote.leader_blend

    def vote_constants(self, volumes: Volumes) -> dict[str, int | bool]:
        """What the vote is compiled for."""
        return {
            "M": len(volumes.tensors),
            "C": volumes.num_categories,
            "LEADERS": leader_bits(self.groups, len(volumes.tensors)),
            "RELEASED": self.vote.semantics == "released",
            "HAS_AVAILABLE": self.available is not None,
            "SQUARINGS": self.vote.squarings,
        }

    def mask_mode(self) -> int:
        """Which voxels are kept."""
        if self.mask.keep is not None:
            return int(KEEP_GIVEN.value)
        return int((KEEP_ALL if self.mask.seed is None else KEEP_DRAWN).value)

    def available_bytes(self, placeholder: Tensor) -> Tensor:
        """`available` as bytes; `placeholder`, which is not read, where there is none."""
        return placeholder if self.available is None else self.available.contiguous().view(torch.uint8)

    def mask_tensors(self, placeholder: Tensor) -> tuple[Tensor, Tensor]:
        """The given mask as bytes, and the seed; `placeholder`, which is not read, for what there is not."""
        keep = placeholder if self.mask.keep is None else self.mask.keep.contiguous().view(torch.uint8)
        return keep, placeholder if self.mask.seed is None else self.mask.seed


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> Tensor:
        volumes = Volumes.of(GroupLogits(tensors, call.stacked))
        weights, losses, mean = _launch_forward(call, volumes)
        ctx.call = call
        ctx.num_tensors = len(tensors)
        # The other tensors are saved too: PyTorch then notices if they are changed in place before the backward pass.
        ctx.save_for_backward(weights, *tensors, *call.mask.tensors(), *optional(call.available))
        return mean if call.distillation.reduction == "mean" else losses

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        weights, *tensors = ctx.saved_tensors[: 1 + ctx.num_tensors]
        logits = GroupLogits(tuple(tensors), ctx.call.stacked)
        with torch.no_grad():
            gradients = empty_gradients(logits)
            _launch_backward(ctx.call, Volumes.of(logits), Volumes.of(gradients), weights, upstream)
        return (None, *differentiable_once(gradients.tensors, upstream, *tensors))


def _launch_forward(call: _Call, volumes: Volumes) -> tuple[Tensor, Tensor, Tensor]:
    """Category weights `[B, M, C]`, losses `[B, M]` and their scalar mean."""
    samples, modalities, categories = volumes.num_samples, len(volumes.tensors), volumes.num_categories
    programs = _walking_programs(volumes)
    partial = torch.empty(
        (samples, modalities * (1 + 2 * categories), programs), dtype=torch.float32, device=volumes.tensors[0].device
    )
    weights = partial.new_empty((samples, modalities, categories))
    losses, mean = partial.new_empty((samples, modalities)), partial.new_empty(())
    keep, seed = call.mask_tensors(partial)
    with _on_device_of(partial):
        forward_kernel[programs, samples](
            volumes.tensors,
            *volumes.strides,
            call.available_bytes(partial),
            keep,
            seed,
            partial,
            volumes.num_voxels,
            last_masked_word(call.mask.ratio),
            *call.vote_arguments(),
            math.log2(call.distillation.clamp),
            **call.vote_constants(volumes),
            MASK=call.mask_mode(),
            KL=call.distillation.divergence == "kl",
            BLOCK=BLOCK_VOXELS,
            **COMPILE_OPTIONS,
        )
        finish_kernel[1,](
            partial,
            weights,
            losses,
            mean,
            samples,
            programs,
            1 / volumes.num_voxels,
            M=modalities,
            C=categories,
            M_PADDED=triton.next_power_of_2(modalities),
            C_PADDED=triton.next_power_of_2(categories),
            CLASS_WEIGHTING=call.distillation.class_weighting,
            CHUNK=FINISH_CHUNK,
            **COMPILE_OPTIONS,
        )
    return weights, losses, mean


def _launch_backward(call: _Call, volumes: Volumes, gradients: Volumes, weights: Tensor, upstream: Tensor) -> None:
    """Fill `gradients` from the gradient of the loss, scalar or `[B, M]`."""
    scale = 1 / (volumes.num_voxels * call.vote.temperature)
    upstream_strides = upstream.stride()
    if call.distillation.reduction == "mean":
        scale /= volumes.num_samples
        upstream_strides = (0, 0)
    keep, seed = call.mask_tensors(weights)
    with _on_device_of(weights):
        backward_kernel[_blocks(volumes), volumes.num_samples](
            volumes.tensors,
            *volumes.strides,
            gradients.tensors,
            *gradients.strides,
            call.available_bytes(weights),
            keep,
            seed,
            weights,
            upstream,
            *upstream_strides,
            scale,
            volumes.num_voxels,
            last_masked_word(call.mask.ratio),
            *call.vote_arguments(),
            call.distillation.clamp,
            **call.vote_constants(volumes),
            MASK=call.mask_mode(),
            BLOCK=BLOCK_VOXELS,
            **COMPILE_OPTIONS,
        )


def _blocks(volumes: Volumes) -> int:
    """Blocks of voxels in a volume."""
    return int(triton.cdiv(volumes.num_voxels, BLOCK_VOXELS))


def _walking_programs(volumes: Volumes) -> int:
    """Programs per sample of a kernel whose programs walk over blocks: enough to fill the card, no more."""
    device = volumes.tensors[0].device
    multiprocessors = 1 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count
    wanted = triton.cdiv(_PROGRAMS_PER_MULTIPROCESSOR * multiprocessors, volumes.num_samples)
    return int(min(wanted, _blocks(volumes)))


def _on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensors'."""
    return contextlib.nullcontext() if tensor.device.type == "cpu" else torch.cuda.device(tensor.device)
