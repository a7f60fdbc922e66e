"""The Triton backend of the segmentation loss of one prediction: launches."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from gss_kernels.layout import Layout, empty_gradients
from gss_kernels.segmentation.call import SegmentationCall
from gss_kernels.segmentation.finish import FinishForm
from gss_kernels.segmentation.kernels import (
    Form,
    segmentation_backward_kernel,
    segmentation_finish_kernel,
    segmentation_forward_kernel,
)
from gss_kernels.tensors import Inputs
from gss_kernels.triton.configuration import Configuration
from gss_kernels.triton.launch import (
    FINISH,
    FINISH_CHUNK,
    OPTIONS,
    Card,
    addressed,
    kernel_inputs,
    kernel_volumes,
    on_device_of,
)
from gss_kernels.triton.tuned import Launch, configuration_for


def forward(inputs: Inputs, call: SegmentationCall, *, keep: bool) -> tuple[Tensor, Tensor, None]:
    """Cross-entropy and Dice, `[2]`, and what the backward pass needs, `[4, B, 1, C]`: two launches."""
    logits, layout = addressed(inputs.logits)
    device, samples = logits.device, layout.num_samples
    launch = Launch("segmentation_forward", 1, layout.num_categories, True, logits.dtype, device)

    def again() -> tuple[Tensor, ...]:
        terms, coefficients, _ = forward(inputs, call, keep=keep)
        return terms, *coefficients

    configuration = configuration_for(launch, segmentation_forward_kernel, again)
    plan = _plan(layout, call, configuration, Card.of(device))
    partials = torch.empty((samples, plan.finish.rows, plan.programs), dtype=torch.float32, device=device)
    terms = torch.empty(2, dtype=torch.float32, device=device)
    # The first kind belongs to the GSS loss.
    coefficients = torch.zeros((4, samples, 1, layout.num_categories), dtype=torch.float32, device=device)
    kernel = kernel_inputs(inputs, logits, layout)
    with on_device_of(partials):
        segmentation_forward_kernel[samples * plan.programs,](
            kernel, plan.blocks, plan.programs, partials, form=plan.form, num_warps=configuration.num_warps, **OPTIONS
        )
        segmentation_finish_kernel[1,](
            partials,
            kernel.available,
            terms,
            coefficients,
            samples,
            layout.num_voxels,
            plan.programs,
            form=plan.finish,
            num_warps=FINISH.num_warps,
            **OPTIONS,
        )
    return terms, coefficients, None


def backward(
    inputs: Inputs, call: SegmentationCall, results: Tensor, upstream: Tensor, kept: None
) -> tuple[Tensor, ...]:
    """The gradient of the prediction under that of the terms, `[2]`: one launch."""
    logits, layout = addressed(inputs.logits)
    device, samples = logits.device, layout.num_samples
    launch = Launch("segmentation_backward", 1, layout.num_categories, True, logits.dtype, device)
    configuration = configuration_for(
        launch, segmentation_backward_kernel, lambda: backward(inputs, call, results, upstream, kept)
    )
    plan = _plan(layout, call, configuration, Card.of(device))
    gradients = empty_gradients(logits)
    with on_device_of(results):
        segmentation_backward_kernel[samples * plan.blocks,](
            kernel_inputs(inputs, logits, layout),
            kernel_volumes(*addressed(gradients)),
            results,
            upstream,
            upstream.stride(0),
            samples,
            plan.blocks,
            form=plan.form,
            num_warps=configuration.num_warps,
            **OPTIONS,
        )
    return gradients.tensors


class _Plan(NamedTuple):
    """What launches of the same layout and settings have in common; see the kernels."""

    blocks: int
    programs: int
    form: Form
    finish: FinishForm


@functools.lru_cache
def _plan(layout: Layout, call: SegmentationCall, configuration: Configuration, card: Card) -> _Plan:
    C, ignoring = layout.num_categories, call.ignore_index is not None
    block, voxels = card.block(configuration), configuration.voxels_per_thread
    return _Plan(
        card.blocks(layout, configuration),
        card.programs(layout, configuration),
        Form(C, call.from_logits, card.ptx, block, voxels, call.ignore_index),
        FinishForm(1, C, 1, triton.next_power_of_2(C), 4 * C + ignoring, FINISH_CHUNK, ignoring=ignoring),
    )
