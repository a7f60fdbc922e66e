"""Launches of the supervised loss of one prediction."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from gss_kernels.autograd import by_hand
from gss_kernels.inputs import GroupLogits
from gss_kernels.layout import Volumes, addressable, empty_gradients
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
from gss_kernels.triton.segmentation import segmentation_backward_kernel, segmentation_forward_kernel
from gss_kernels.triton.tuned import Launch, configuration_for


@by_hand
def triton_segmentation_forward(
    prediction: Tensor, labels: Tensor, available: Tensor | None, *, from_logits: bool
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice, `[2]`, and what the backward pass needs, `[4, B, 1, C]`."""
    volumes = Volumes.of(addressable(_alone(prediction)))
    samples, C = volumes.num_samples, volumes.num_categories

    def again() -> tuple[Tensor, ...]:
        terms, coefficients = triton_segmentation_forward(prediction, labels, available, from_logits=from_logits)
        return terms, *coefficients

    launch = Launch("segmentation_forward", 1, C, True, prediction.dtype, prediction.device)
    configuration = configuration_for(launch, again)
    programs = walking_programs(volumes, configuration)
    partial = torch.empty((samples, 4 * C, programs), dtype=torch.float32, device=prediction.device)
    terms, coefficients, unused = partial.new_empty(2), partial.new_empty((4, samples, 1, C)), partial.new_empty(())
    with on_device_of(partial):
        segmentation_forward_kernel[samples * programs,](
            volumes.tensors[0],
            volumes.strides,
            as_bytes(available, partial),
            labels.contiguous(),
            partial,
            volumes.num_voxels,
            blocks_of(volumes, configuration),
            programs,
            C=C,
            HAS_AVAILABLE=available is not None,
            FROM_LOGITS=from_logits,
            BLOCK=block_of(configuration),
            VOXELS=configuration.voxels_per_thread,
            PTX=use_ptx(),
            **compile_options(configuration),
        )
        finish_kernel[1,](
            partial,
            as_bytes(available, partial),
            coefficients,
            unused,
            terms,
            unused,
            unused,
            unused,
            samples,
            volumes.num_voxels,
            programs,
            (1.0, 0.0),
            M=1,
            C=C,
            M_PADDED=1,
            C_PADDED=triton.next_power_of_2(C),
            HAS_AVAILABLE=available is not None,
            DISTILLATION=False,
            CLASS_WEIGHTING=False,
            SUPERVISED=True,
            STATISTICS=False,
            ROWS=4 * C,
            CHUNK=FINISH_CHUNK,
            **compile_options(FINISH),
        )
    return terms, coefficients


@by_hand
def triton_segmentation_backward(
    prediction: Tensor,
    labels: Tensor,
    available: Tensor | None,
    coefficients: Tensor,
    upstream: Tensor,
    *,
    from_logits: bool,
) -> Tensor:
    """The gradient of the prediction under that of the terms, `[2]`."""
    logits = addressable(_alone(prediction))
    volumes = Volumes.of(logits)
    C = volumes.num_categories

    def again() -> tuple[Tensor, ...]:
        gradient = triton_segmentation_backward(
            prediction, labels, available, coefficients, upstream, from_logits=from_logits
        )
        return (gradient,)

    launch = Launch("segmentation_backward", 1, C, True, prediction.dtype, prediction.device)
    configuration = configuration_for(launch, again)
    gradients = empty_gradients(logits)
    results = Volumes.of(gradients)
    blocks = blocks_of(volumes, configuration)
    with on_device_of(coefficients):
        segmentation_backward_kernel[volumes.num_samples * blocks,](
            volumes.tensors[0],
            volumes.strides,
            results.tensors[0],
            results.strides,
            as_bytes(available, coefficients),
            labels.contiguous(),
            coefficients,
            upstream,
            upstream.stride(0),
            volumes.num_samples,
            volumes.num_voxels,
            blocks,
            C=C,
            HAS_AVAILABLE=available is not None,
            FROM_LOGITS=from_logits,
            BLOCK=block_of(configuration),
            PTX=use_ptx(),
            **compile_options(configuration),
        )
    return gradients.tensors[0]


def _alone(prediction: Tensor) -> GroupLogits:
    return GroupLogits((prediction,), stacked=False)
