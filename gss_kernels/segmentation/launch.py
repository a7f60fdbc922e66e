"""The Triton backend of the segmentation loss of one prediction."""

from __future__ import annotations

import functools

from torch import Tensor

from gss_kernels.layout import Layout
from gss_kernels.segmentation.call import SegmentationCall
from gss_kernels.segmentation.kernels import (
    segmentation_backward_kernel,
    segmentation_finish_kernel,
    segmentation_forward_kernel,
)
from gss_kernels.tensors import Inputs
from gss_kernels.triton import launch
from gss_kernels.triton.arguments import Form, Numbers, Places, Walk
from gss_kernels.triton.configuration import Configuration
from gss_kernels.triton.launch import Card, Kernels, Plan


def forward(inputs: Inputs, call: SegmentationCall, *, keep: bool) -> tuple[Tensor, Tensor, None]:  # noqa: ARG001
    """The forward pass; keeps nothing."""
    value, results, _ = launch.forward(KERNELS, inputs, call)
    return value, results.view(4, *inputs.logits.shape), None


def backward(
    inputs: Inputs,
    call: SegmentationCall,
    results: Tensor,
    upstream: Tensor,
    kept: None,  # noqa: ARG001
) -> tuple[Tensor, ...]:
    """The gradient of the prediction under that of the terms."""
    return launch.backward(KERNELS, inputs, call, results, upstream)


@functools.lru_cache
def _plan(
    layout: Layout,
    call: SegmentationCall,
    segmented: bool,
    available: bool,  # noqa: ARG001
    configuration: Configuration,
    card: Card,
) -> Plan:
    B, _, C = layout.shape
    basis = Form(1, C, segmented=segmented, ignore=call.ignore_index)
    block, rows = configuration.block(card.threads_per_warp), 4 * C + (call.ignore_index is not None)
    blockwise = basis._replace(ptx=card.ptx, block=block, from_logits=call.from_logits)
    return Plan(
        Walk(card.blocks(layout, configuration), card.programs(layout, configuration), B, 0),
        Numbers(1.0, 1.0, 1.0, 1.0, 1.0),
        blockwise._replace(voxels=configuration.voxels_per_thread, rows=rows),
        basis._replace(rows=rows),
        blockwise,
        (1.0, 0.0),
        (0.0, 1.0),
        (2,),
        (B * C,) * 4,
        Places(0, 0, 0, 0),
    )


KERNELS = Kernels(
    segmentation_forward_kernel,
    segmentation_finish_kernel,
    segmentation_backward_kernel,
    ("segmentation_forward", "segmentation_backward"),
    _plan,
)
