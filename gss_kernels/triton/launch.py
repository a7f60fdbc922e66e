"""The launches of a loss: what all of them share, and what follows from shapes and settings, worked out once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from gss_kernels.layout import Layout, addressed, empty_gradients
from gss_kernels.tensors import GroupLogits, Inputs
from gss_kernels.triton.arguments import Form, Masks, Numbers, Places, Upstream, Volumes, Walk
from gss_kernels.triton.configuration import Configuration, KernelName
from gss_kernels.triton.tuned import Launch, configuration_for, on_device_of

FINISH = Configuration(voxels_per_thread=1, num_warps=8)
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class Card(NamedTuple):
    """What launches depend on."""

    multiprocessors: int  # how many
    threads_per_warp: int  # AMD's have 64
    ptx: bool  # whether kernels may hold inline PTX: on NVIDIA hardware

    @classmethod
    def of(cls, device: torch.device) -> Card:
        """The card at hand; the interpreter, on the CPU, runs one program at a time."""
        on_cpu = device.type == "cpu"
        multiprocessors = 1 if on_cpu else int(torch.cuda.get_device_properties(device).multi_processor_count)
        nvidia = torch.version.cuda is not None and not _INTERPRETED
        return cls(multiprocessors, 64 if torch.version.hip is not None else 32, nvidia)

    def blocks(self, layout: Layout, configuration: Configuration) -> int:
        """Blocks of voxels in a volume."""
        return int(triton.cdiv(layout.num_voxels, configuration.block(self.threads_per_warp)))

    def programs(self, layout: Layout, configuration: Configuration) -> int:
        """Programs per sample of a kernel whose programs walk over blocks: enough to fill the card, no more."""
        wanted = triton.cdiv(configuration.programs_per_multiprocessor * self.multiprocessors, layout.shape[0])
        return int(min(wanted, self.blocks(layout, configuration)))


class Plan(NamedTuple):
    """What launches of the same layout and settings have in common."""

    walk: Walk
    numbers: Numbers
    forward: Form  # of the forward kernel
    finish: Form  # of the finish kernel
    blockwise: Form  # of kernels with a program for each block
    weights: tuple[float, float]  # of the segmentation losses and of the GSS loss in the value
    scales: tuple[float, float]  # of the upstream gradient, for the GSS loss and for the segmentation losses
    value: tuple[int, ...]  # its shape
    sizes: tuple[int, ...]  # of the parts of the results
    places: Places  # where these begin


class Kernels(NamedTuple):
    """Those of a loss with their names in the configuration, and its plan of a call.

    The plan takes layout, call, whether there are labels, whether some samples may lack modalities, configuration and
    card.
    """

    forward: Any
    finish: Any
    backward: Any
    names: tuple[KernelName, KernelName]
    plan: Callable[[Layout, Any, bool, bool, Configuration, Card], Plan]


def forward(kernels: Kernels, inputs: Inputs, call: Any) -> tuple[Tensor, Tensor, Plan]:
    """Value, results and the plan: two launches, nothing voxel-sized allocated or kept."""

    def again() -> tuple[Tensor, ...]:
        value, results, plan = forward(kernels, inputs, call)
        return value, *(part for part in torch.split(results, list(plan.sizes)) if part.numel())

    logits, read, plan, options = _prepared(kernels, 0, inputs, call, again)
    (volumes, masks, _), walk = read, plan.walk
    empty = functools.partial(torch.empty, dtype=torch.float32, device=logits.device)
    partials = empty((walk.num_samples, plan.forward.rows, walk.programs))
    value, results = empty(plan.value), empty(sum(plan.sizes))
    sums, written = (partials, masks.available), (value, results, plan.places)
    with on_device_of(partials):
        forward_kernel, finish_kernel = kernels.forward[walk.num_samples * walk.programs,], kernels.finish[1,]
        forward_kernel(*read, partials, walk, plan.numbers, form=plan.forward, **options)
        options = compile_options(FINISH)
        finish_kernel(*sums, *written, walk, plan.weights, volumes.num_voxels, form=plan.finish, **options)
    return value, results, plan


def backward(kernels: Kernels, inputs: Inputs, call: Any, results: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    """The gradient in the logits' form under that of the value: one launch."""

    def again() -> tuple[Tensor, ...]:
        return backward(kernels, inputs, call, results, upstream)

    logits, read, plan, options = _prepared(kernels, 1, inputs, call, again)
    gradients, layout = empty_gradients(logits)
    written = kernel_volumes(gradients, layout)
    scaled = Upstream(upstream, upstream.stride() or (0, 0), *plan.scales)
    with on_device_of(results):
        backward_kernel = kernels.backward[plan.walk.num_samples * plan.walk.blocks,]
        backward_kernel(*read, written, results, scaled, plan.walk, plan.numbers, form=plan.blockwise, **options)
    return gradients.tensors


def _prepared(
    kernels: Kernels, number: int, inputs: Inputs, call: Any, again: Callable[[], tuple[Tensor, ...]]
) -> tuple[GroupLogits, tuple[Volumes, Masks, Tensor | None], Plan, dict[str, Any]]:
    """Of a pass, forward 0 or backward 1: addressed logits, what its kernel reads, the plan, launch options."""
    logits, layout = addressed(inputs.logits)
    segmented, available = inputs.labels is not None, inputs.available is not None
    launch = Launch(kernels.names[number], *layout.shape[1:], segmented, logits.dtype, logits.device)
    configuration = configuration_for(launch, (kernels.forward, kernels.backward)[number], again)
    plan = kernels.plan(layout, call, segmented, available, configuration, Card.of(logits.device))
    labels = None if inputs.labels is None else inputs.labels.contiguous()
    return logits, (kernel_volumes(logits, layout), kernel_masks(inputs), labels), plan, compile_options(configuration)


def kernel_volumes(logits: GroupLogits, layout: Layout) -> Volumes:
    """What a kernel takes of addressed logits."""
    return Volumes(logits.per_modality(), *layout.strides, layout.num_voxels)


def kernel_masks(inputs: Inputs) -> Masks:
    """What a kernel takes of a call's masks."""
    return Masks(_as_bytes(inputs.available), _as_bytes(inputs.keep), inputs.seed)


def _as_bytes(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous().view(torch.uint8)


def compile_options(configuration: Configuration) -> dict[str, Any]:
    """Launch options; newer versions of Triton ask for a decision on fused multiply-add, which the kernels want."""
    return {"num_warps": configuration.num_warps, "enable_fp_fusion": True}
