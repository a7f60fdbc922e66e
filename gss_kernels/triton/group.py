"""Launches of the group loss: the GSS loss, alone or with the supervised loss of the same logits."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from gss_kernels.autograd import by_hand
from gss_kernels.call import GroupCall, GroupResults, empty_results
from gss_kernels.groups import CategoryGroups
from gss_kernels.inputs import GroupLogits
from gss_kernels.layout import Volumes, addressable, empty_gradients
from gss_kernels.philox import last_masked_word
from gss_kernels.settings import VoteSettings
from gss_kernels.triton.configuration import TABLE, num_sums
from gss_kernels.triton.finish import finish_kernel
from gss_kernels.triton.launch import (
    FINISH,
    FINISH_CHUNK,
    as_bytes,
    block_of,
    blocks_of,
    compile_options,
    on_device_of,
    use_ptx,
    walking_programs,
)
from gss_kernels.triton.loss import backward_kernel, forward_kernel, target_kernel
from gss_kernels.triton.tuned import Launch, configuration_for
from gss_kernels.triton.voxels import KEEP_ALL, KEEP_DRAWN, KEEP_GIVEN


@by_hand
def triton_group_forward(logits: GroupLogits, call: GroupCall, *, keep: bool) -> tuple[GroupResults, None]:
    """The forward pass: two launches, nothing voxel-sized allocated or kept."""
    volumes = Volumes.of(addressable(logits))
    samples, M, C = volumes.num_samples, len(volumes.tensors), volumes.num_categories
    supervised = call.supervision is not None
    rows = num_sums(M, C, supervised=supervised, statistics=call.statistics)

    def again() -> tuple[Tensor, ...]:
        results, _ = triton_group_forward(logits, call, keep=keep)
        return results.losses, results.terms, *results.coefficients

    configuration = configuration_for(Launch("forward", M, C, supervised, logits.dtype, logits.device), again)
    programs = walking_programs(volumes, configuration)
    partial = torch.empty((samples, rows, programs), dtype=torch.float32, device=volumes.tensors[0].device)
    results = empty_results(logits, partial, supervised=call.supervision is not None, statistics=call.statistics)
    with on_device_of(partial):
        forward_kernel[samples * programs,](
            volumes.tensors,
            volumes.strides,
            *_mask_arguments(call, partial),
            partial if call.supervision is None else call.supervision.labels.contiguous(),
            partial,
            volumes.num_voxels,
            blocks_of(volumes, configuration),
            programs,
            last_masked_word(call.mask.ratio),
            _vote_arguments(call.vote),
            **_vote_constants(call.groups, call.vote, call.available, volumes),
            LOG2_CLAMP=math.log2(call.distillation.clamp),
            MASK=_mask_mode(call),
            KL=call.distillation.divergence == "kl",
            SUPERVISED=call.supervision is not None,
            STATISTICS=call.statistics,
            ROWS=rows,
            BLOCK=block_of(configuration),
            VOXELS=configuration.voxels_per_thread,
            **compile_options(configuration),
        )
        finish_kernel[1,](
            partial,
            as_bytes(call.available, partial),
            results.coefficients,
            results.losses,
            results.terms,
            results.total,
            results.routes,
            results.agreement,
            samples,
            volumes.num_voxels,
            programs,
            (call.supervised_weight, call.gss_weight),
            M=M,
            C=C,
            M_PADDED=triton.next_power_of_2(M),
            C_PADDED=triton.next_power_of_2(C),
            HAS_AVAILABLE=call.available is not None,
            DISTILLATION=True,
            CLASS_WEIGHTING=call.distillation.class_weighting,
            SUPERVISED=call.supervision is not None,
            STATISTICS=call.statistics,
            ROWS=rows,
            CHUNK=FINISH_CHUNK,
            **compile_options(FINISH),
        )
    return results, None


@by_hand
def triton_group_backward(
    logits: GroupLogits,
    call: GroupCall,
    coefficients: Tensor,
    upstream: Tensor,
    kept: None,
) -> tuple[Tensor, ...]:
    """The gradient in the logits' form under that of the total, a scalar, or of the losses, `[B, M]`: one launch."""
    logits = addressable(logits)
    volumes = Volumes.of(logits)
    M, C, supervised = len(volumes.tensors), volumes.num_categories, call.supervision is not None
    configuration = configuration_for(
        Launch("backward", M, C, supervised, logits.dtype, logits.device),
        lambda: triton_group_backward(logits, call, coefficients, upstream, kept),
    )
    gradients = empty_gradients(logits)
    results = Volumes.of(gradients)
    blocks = blocks_of(volumes, configuration)
    scale = 1 / (volumes.num_voxels * call.vote.temperature)
    # The losses are without weights and supervision, the total is with them.
    scales = (
        (scale * call.gss_weight / volumes.num_samples, call.supervised_weight) if upstream.dim() == 0 else (scale, 0.0)
    )
    with on_device_of(coefficients):
        backward_kernel[volumes.num_samples * blocks,](
            volumes.tensors,
            volumes.strides,
            results.tensors,
            results.strides,
            *_mask_arguments(call, coefficients),
            coefficients if call.supervision is None else call.supervision.labels.contiguous(),
            coefficients,
            upstream,
            upstream.stride() if upstream.dim() == 2 else (0, 0),
            scales,
            volumes.num_samples,
            volumes.num_voxels,
            blocks,
            last_masked_word(call.mask.ratio),
            _vote_arguments(call.vote),
            call.distillation.clamp,
            **_vote_constants(call.groups, call.vote, call.available, volumes),
            MASK=_mask_mode(call),
            SUPERVISED=call.supervision is not None,
            BLOCK=block_of(configuration),
            **compile_options(configuration),
        )
    return gradients.tensors


def triton_soft_targets(
    logits: GroupLogits, groups: CategoryGroups, vote: VoteSettings, available: Tensor | None
) -> Tensor:
    """The soft target t, `[B, C, *spatial]`."""
    logits = addressable(logits)
    volumes = Volumes.of(logits)
    M, C = len(volumes.tensors), volumes.num_categories
    configuration = TABLE.of("backward", M, C, supervised=False)
    blocks = blocks_of(volumes, configuration)
    target = torch.empty(
        (logits.num_samples, logits.num_categories, *logits.spatial), dtype=torch.float32, device=logits.device
    )
    with on_device_of(target):
        target_kernel[volumes.num_samples * blocks,](
            volumes.tensors,
            volumes.strides,
            as_bytes(available, target),
            target,
            volumes.num_voxels,
            blocks,
            _vote_arguments(vote),
            **_vote_constants(groups, vote, available, volumes),
            BLOCK=block_of(configuration),
            **compile_options(configuration),
        )
    return target


def leader_bits(groups: CategoryGroups, num_modalities: int) -> int:
    """Leader sets as one number: bit `c * M + m` says that modality m leads category c."""
    return sum(1 << (c * num_modalities + m) for c, leaders in enumerate(groups.leaders) for m in leaders)


def _vote_arguments(vote: VoteSettings) -> tuple[float, float, float, float]:
    """log2_scale, leader_threshold, member_threshold, leader_blend."""
    # A 1 and a 1.0 are different programs to Triton.
    rest = (vote.leader_threshold, vote.member_threshold, vote.leader_blend)
    return math.log2(math.e) / vote.temperature, *map(float, rest)  # type: ignore[return-value]


def _vote_constants(
    groups: CategoryGroups, vote: VoteSettings, available: Tensor | None, volumes: Volumes
) -> dict[str, Any]:
    """What the vote is compiled for."""
    return {
        "M": len(volumes.tensors),
        "C": volumes.num_categories,
        "LEADERS": leader_bits(groups, len(volumes.tensors)),
        "RELEASED": vote.semantics == "released",
        "HAS_AVAILABLE": available is not None,
        "SQUARINGS": vote.squarings,
        "PTX": use_ptx(),
    }


def _mask_mode(call: GroupCall) -> int:
    if call.mask.keep is not None:
        return int(KEEP_GIVEN.value)
    return int((KEEP_ALL if call.mask.seed is None else KEEP_DRAWN).value)


def _mask_arguments(call: GroupCall, placeholder: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`available`, the given mask and the seed; `placeholder`, which is not read, for what there is not."""
    seed = placeholder if call.mask.seed is None else call.mask.seed
    return as_bytes(call.available, placeholder), as_bytes(call.mask.keep, placeholder), seed
