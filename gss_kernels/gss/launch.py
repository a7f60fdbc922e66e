"""The Triton backend of the GSS loss, alone or with the segmentation losses of the same logits."""

from __future__ import annotations

import functools
import math
from itertools import accumulate

import torch
from torch import Tensor

from gss_kernels.gss.call import GSSCall, result_shapes
from gss_kernels.gss.finish import gss_finish_kernel
from gss_kernels.gss.kernels import gss_backward_kernel, gss_forward_kernel, gss_target_kernel
from gss_kernels.layout import Layout, addressed
from gss_kernels.tensors import Inputs
from gss_kernels.triton import launch
from gss_kernels.triton.arguments import Form, Numbers, Places, Walk
from gss_kernels.triton.configuration import TABLE, Configuration, num_sums
from gss_kernels.triton.launch import Card, Kernels, Plan
from gss_kernels.triton.tuned import on_device_of
from gss_kernels.voxel_mask import last_masked_word


def forward(inputs: Inputs, call: GSSCall, *, keep: bool) -> tuple[Tensor, Tensor, None]:  # noqa: ARG001
    """The forward pass; keeps nothing."""
    value, results, _ = launch.forward(KERNELS, inputs, call)
    return value, results, None


def backward(inputs: Inputs, call: GSSCall, results: Tensor, upstream: Tensor, kept: None) -> tuple[Tensor, ...]:  # noqa: ARG001
    """The gradient in the logits' form under that of the value."""
    return launch.backward(KERNELS, inputs, call, results, upstream)


def soft_targets(inputs: Inputs, call: GSSCall) -> Tensor:
    """The soft target t, `[B, C, *spatial]`."""
    logits, layout = addressed(inputs.logits)
    configuration = TABLE.of("backward", *layout.shape[1:], segmented=False)
    plan = _plan(layout, call, False, inputs.available is not None, configuration, Card.of(logits.device))
    B, _, C = layout.shape
    target = torch.empty((B, C, *logits.spatial), dtype=torch.float32, device=logits.device)
    volumes, masks = launch.kernel_volumes(logits, layout), launch.kernel_masks(inputs)
    with on_device_of(target):
        gss_target_kernel[B * plan.walk.blocks,](
            volumes,
            masks,
            target,
            plan.walk,
            plan.numbers,
            form=plan.blockwise,
            **launch.compile_options(configuration),
        )
    return target


@functools.lru_cache
def _plan(
    layout: Layout, call: GSSCall, segmented: bool, available: bool, configuration: Configuration, card: Card
) -> Plan:
    B, M, C = layout.shape
    settings, ignoring = call.settings, call.ignore_index is not None
    first = num_sums(M, C, segmented=False, statistics=False)
    rows = num_sums(M, C, segmented=segmented, statistics=call.statistics) + (segmented and ignoring)
    basis = Form(M, C, segmented=segmented, ignore=call.ignore_index)
    blockwise = basis._replace(
        leaders=call.leaders,
        released=settings.semantics == "released",
        available=available,
        squarings=settings.squarings,
        ptx=card.ptx,
        block=configuration.block(card.threads_per_warp),
    )
    forward_form = blockwise._replace(
        voxels=configuration.voxels_per_thread,
        rows=rows,
        kl=settings.divergence == "kl",
        log2_clamp=math.log2(settings.clamp),
        statistics=call.statistics,
    )
    finish = basis._replace(
        rows=rows,
        first=first,
        class_weighting=settings.class_weighting,
        statistics=call.statistics,
        per_sample=call.per_sample,
    )
    scale = 1 / (layout.num_voxels * settings.temperature)
    scales = (scale, 0.0) if call.per_sample else (scale * call.gss_weight / B, call.supervised_weight)
    vote = (settings.leader_threshold, settings.member_threshold, settings.leader_blend)
    sizes = tuple(math.prod(shape) for shape in result_shapes(layout.shape, segmented, call.statistics))
    *starts, _ = accumulate(sizes, initial=0)
    blocks, programs = card.blocks(layout, configuration), card.programs(layout, configuration)
    return Plan(
        Walk(blocks, programs, B, last_masked_word(settings.mask_ratio)),
        Numbers(math.log2(math.e) / settings.temperature, *vote, settings.clamp),
        forward_form,
        finish,
        blockwise,
        (call.supervised_weight, call.gss_weight),
        scales,
        (B, M) if call.per_sample else (),
        # The coefficients are of different magnitudes, kind by kind.
        (B * M * C,) * (sizes[0] // (B * M * C)) + sizes[1:],
        Places(*starts),
    )


KERNELS = Kernels(gss_forward_kernel, gss_finish_kernel, gss_backward_kernel, ("forward", "backward"), _plan)
