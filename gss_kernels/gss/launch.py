"""The Triton backend of the GSS loss, alone or with the segmentation losses of the same logits: launches."""

from __future__ import annotations

import functools
import math
from itertools import accumulate
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from gss_kernels.gss.call import GSSCall, GSSResults, result_shapes
from gss_kernels.gss.finish import Places, gss_finish_kernel
from gss_kernels.gss.kernel_vote import Vote
from gss_kernels.gss.kernels import (
    Form,
    Upstream,
    Walk,
    gss_backward_kernel,
    gss_forward_kernel,
    gss_target_kernel,
)
from gss_kernels.layout import Layout, empty_gradients
from gss_kernels.philox import last_masked_word
from gss_kernels.segmentation.finish import FinishForm
from gss_kernels.tensors import Inputs
from gss_kernels.triton.configuration import TABLE, Configuration, num_sums
from gss_kernels.triton.launch import (
    FINISH,
    FINISH_CHUNK,
    OPTIONS,
    Card,
    addressed,
    as_bytes,
    kernel_inputs,
    kernel_volumes,
    on_device_of,
)
from gss_kernels.triton.tuned import Launch, configuration_for


def forward(inputs: Inputs, call: GSSCall, *, keep: bool) -> tuple[Tensor, Tensor, None]:
    """The forward pass: two launches, nothing voxel-sized allocated or kept."""
    logits, layout = addressed(inputs.logits)
    segmented, device = inputs.labels is not None, logits.device
    launch = Launch("forward", layout.num_modalities, layout.num_categories, segmented, logits.dtype, device)

    def again() -> tuple[Tensor, ...]:
        value, results, _ = forward(inputs, call, keep=keep)
        own = GSSResults.of(results, inputs, call)
        return value, own.terms, *own.coefficients

    configuration = configuration_for(launch, gss_forward_kernel, again)
    plan = _plan(layout, call, segmented, inputs.available is not None, configuration, Card.of(device))
    partials = torch.empty(plan.partials, dtype=torch.float32, device=device)
    value = torch.empty(plan.value, dtype=torch.float32, device=device)
    results = torch.empty(plan.results, dtype=torch.float32, device=device)
    kernel = kernel_inputs(inputs, logits, layout)
    with on_device_of(partials):
        gss_forward_kernel[plan.grid](
            kernel, partials, plan.walk, plan.vote, form=plan.form, num_warps=configuration.num_warps, **OPTIONS
        )
        gss_finish_kernel[1,](
            partials,
            kernel.available,
            value,
            results,
            plan.places,
            plan.walk,
            (call.supervised_weight, call.gss_weight),
            layout.num_voxels,
            form=plan.finish,
            num_warps=FINISH.num_warps,
            **OPTIONS,
        )
    return value, results, None


def backward(inputs: Inputs, call: GSSCall, results: Tensor, upstream: Tensor, kept: None) -> tuple[Tensor, ...]:
    """The gradient in the logits' form under that of the value: one launch."""
    logits, layout = addressed(inputs.logits)
    segmented, device = inputs.labels is not None, logits.device
    launch = Launch("backward", layout.num_modalities, layout.num_categories, segmented, logits.dtype, device)
    configuration = configuration_for(
        launch, gss_backward_kernel, lambda: backward(inputs, call, results, upstream, kept)
    )
    plan = _blockwise_plan(layout, call, inputs.available is not None, configuration, Card.of(device))
    gradients = empty_gradients(logits)
    scale = 1 / (layout.num_voxels * call.settings.temperature)
    if call.per_sample:
        factors = Upstream(upstream, upstream.stride(), scale, 0.0)
    else:
        factors = Upstream(upstream, (0, 0), scale * call.gss_weight / layout.num_samples, call.supervised_weight)
    with on_device_of(results):
        gss_backward_kernel[plan.grid](
            kernel_inputs(inputs, logits, layout),
            kernel_volumes(*addressed(gradients)),
            results,
            factors,
            plan.vote,
            plan.walk,
            call.settings.clamp,
            form=plan.form,
            num_warps=configuration.num_warps,
            **OPTIONS,
        )
    return gradients.tensors


def soft_targets(inputs: Inputs, call: GSSCall) -> Tensor:
    """The soft target t, `[B, C, *spatial]`."""
    logits, layout = addressed(inputs.logits)
    configuration = TABLE.of("backward", layout.num_modalities, layout.num_categories, supervised=False)
    plan = _blockwise_plan(layout, call, inputs.available is not None, configuration, Card.of(logits.device))
    shape = (logits.num_samples, logits.num_categories, *logits.spatial)
    target = torch.empty(shape, dtype=torch.float32, device=logits.device)
    with on_device_of(target):
        gss_target_kernel[plan.grid](
            kernel_inputs(inputs, logits, layout),
            plan.vote,
            plan.walk,
            target,
            form=plan.form,
            num_warps=configuration.num_warps,
            **OPTIONS,
        )
    return target


class _Plan(NamedTuple):
    """What launches of the same layout and settings have in common; see the kernels."""

    grid: tuple[int]
    vote: Vote
    walk: Walk
    form: Form
    finish: FinishForm
    partials: tuple[int, ...]
    value: tuple[int, ...]
    results: int
    places: Places


class _BlockwisePlan(NamedTuple):
    """The same of kernels with a program for each block."""

    grid: tuple[int]
    vote: Vote
    walk: Walk
    form: Form


@functools.lru_cache
def _plan(
    layout: Layout, call: GSSCall, segmented: bool, available: bool, configuration: Configuration, card: Card
) -> _Plan:
    B, M, C = layout.num_samples, layout.num_modalities, layout.num_categories
    ignoring = call.ignore_index is not None
    first = num_sums(M, C, supervised=False, statistics=False)
    rows = num_sums(M, C, supervised=segmented, statistics=call.statistics) + (segmented and ignoring)
    programs = card.programs(layout, configuration)
    shapes = result_shapes(layout, segmented, call.statistics)
    *starts, size = accumulate((math.prod(shape) for shape in shapes), initial=0)
    return _Plan(
        grid=(B * programs,),
        vote=_vote(call),
        walk=_walk(layout, call, card.blocks(layout, configuration), programs),
        form=_form(layout, call, available, configuration, card)._replace(
            voxels=configuration.voxels_per_thread,
            rows=rows,
            kl=call.settings.divergence == "kl",
            log2_clamp=math.log2(call.settings.clamp),
            statistics=call.statistics,
        ),
        finish=FinishForm(
            M,
            C,
            triton.next_power_of_2(M),
            triton.next_power_of_2(C),
            rows,
            FINISH_CHUNK,
            first,
            segmented,
            ignoring,
            call.settings.class_weighting,
            call.statistics,
            call.per_sample,
        ),
        partials=(B, rows, programs),
        value=(B, M) if call.per_sample else (),
        results=size,
        places=Places(*starts),
    )


@functools.lru_cache
def _blockwise_plan(
    layout: Layout, call: GSSCall, available: bool, configuration: Configuration, card: Card
) -> _BlockwisePlan:
    blocks = card.blocks(layout, configuration)
    form = _form(layout, call, available, configuration, card)
    return _BlockwisePlan((layout.num_samples * blocks,), _vote(call), _walk(layout, call, blocks, 0), form)


def _form(layout: Layout, call: GSSCall, available: bool, configuration: Configuration, card: Card) -> Form:
    M = layout.num_modalities
    return Form(
        M,
        layout.num_categories,
        leader_bits(call.leaders, M),
        call.settings.semantics == "released",
        available,
        call.settings.squarings,
        card.ptx,
        card.block(configuration),
        ignore=call.ignore_index,
    )


def _vote(call: GSSCall) -> Vote:
    settings = call.settings
    scale = math.log2(math.e) / settings.temperature
    return Vote(scale, settings.leader_threshold, settings.member_threshold, settings.leader_blend)


def _walk(layout: Layout, call: GSSCall, blocks: int, programs: int) -> Walk:
    return Walk(blocks, programs, last_masked_word(call.settings.mask_ratio), layout.num_samples)


def leader_bits(leaders: tuple[tuple[int, ...], ...], num_modalities: int) -> int:
    """Leader sets as one number: bit `c * M + m` says that modality m leads category c."""
    return sum(1 << (c * num_modalities + m) for c, own in enumerate(leaders) for m in own)
