"""The launches of a loss: what all of them share, and what follows from shapes and settings, worked out once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from gss_kernels.layout import Layout, addressable, empty_gradients, layout_of
from gss_kernels.tensors import GroupLogits, Inputs
from gss_kernels.triton.arguments import Form, Masks, Numbers, Places, Upstream, Volumes, Walk
from gss_kernels.triton.configuration import Configuration, KernelName
from gss_kernels.triton.tuned import Launch, configuration_for, on_device_of

FINISH = Configuration(voxels_per_thread=1, num_warps=8)
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class Card(NamedTuple):
    """What launches depend on.

    Attributes:
        multiprocessors: how many.
        threads_per_warp: AMD's have 64.
        ptx: whether kernels may hold inline PTX: on NVIDIA hardware.
    """

    multiprocessors: int
    threads_per_warp: int
    ptx: bool

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
    """What launches of the same layout and settings have in common.

    Attributes:
        walk: of all kernels.
        numbers: of all kernels.
        forward: what the forward kernel is compiled for.
        finish: what the finish kernel is compiled for.
        blockwise: what kernels with a program for each block are compiled for.
        weights: of the segmentation losses and of the GSS loss in the value.
        scales: what the upstream gradient is multiplied with for the GSS loss and for the segmentation losses.
        value: shape of the value.
        sizes: of the parts of the results.
        places: where these begin.
    """

    walk: Walk
    numbers: Numbers
    forward: Form
    finish: Form
    blockwise: Form
    weights: tuple[float, float]
    scales: tuple[float, float]
    value: tuple[int, ...]
    sizes: tuple[int, ...]
    places: Places


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
        return value, *(part for part in results.split(plan.sizes) if part.numel())

    logits, volumes, plan, options = _prepared(kernels, 0, inputs, call, again)
    empty = functools.partial(torch.empty, dtype=torch.float32, device=logits.device)
    walk, value, results = plan.walk, empty(plan.value), empty(sum(plan.sizes))
    partials = empty((walk.num_samples, plan.forward.rows, walk.programs))
    masks = kernel_masks(inputs)
    with on_device_of(partials):
        run = kernels.forward[walk.num_samples * walk.programs,]
        run(volumes, masks, kernel_labels(inputs), partials, walk, plan.numbers, form=plan.forward, **options)
        finish, sums, options = kernels.finish[1,], (partials, masks.available), compile_options(FINISH)
        finish(*sums, value, results, plan.places, walk, plan.weights, volumes.num_voxels, form=plan.finish, **options)
    return value, results, plan


def backward(kernels: Kernels, inputs: Inputs, call: Any, results: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    """The gradient in the logits' form under that of the value: one launch."""

    def again() -> tuple[Tensor, ...]:
        return backward(kernels, inputs, call, results, upstream)

    logits, volumes, plan, options = _prepared(kernels, 1, inputs, call, again)
    gradients = empty_gradients(logits)
    own, of = (volumes, kernel_masks(inputs), kernel_labels(inputs)), kernel_volumes(*addressed(gradients))
    scaled = Upstream(upstream, upstream.stride() or (0, 0), *plan.scales)
    with on_device_of(results):
        run = kernels.backward[plan.walk.num_samples * plan.walk.blocks,]
        run(*own, of, results, scaled, plan.walk, plan.numbers, form=plan.blockwise, **options)
    return gradients.tensors


def _prepared(
    kernels: Kernels, number: int, inputs: Inputs, call: Any, again: Callable[[], tuple[Tensor, ...]]
) -> tuple[GroupLogits, Volumes, Plan, dict[str, Any]]:
    """What a pass takes, forward 0 or backward 1: addressed logits, as a kernel has them, plan and launch options."""
    logits, layout = addressed(inputs.logits)
    segmented, available = inputs.labels is not None, inputs.available is not None
    launch = Launch(kernels.names[number], *layout.shape[1:], segmented, logits.dtype, logits.device)
    configuration = configuration_for(launch, (kernels.forward, kernels.backward)[number], again)
    plan = kernels.plan(layout, call, segmented, available, configuration, Card.of(logits.device))
    return logits, kernel_volumes(logits, layout), plan, compile_options(configuration)


def addressed(logits: GroupLogits) -> tuple[GroupLogits, Layout]:
    """The logits, copied if the kernels cannot address them as they are, and their layout."""
    layout = layout_of(logits)
    return (logits, layout) if layout is not None else addressed(addressable(logits))


def kernel_volumes(logits: GroupLogits, layout: Layout) -> Volumes:
    """What a kernel takes of addressed logits."""
    return Volumes(logits.per_modality(), *layout.strides, layout.num_voxels)


def kernel_masks(inputs: Inputs) -> Masks:
    """What a kernel takes of a call's masks."""
    return Masks(_as_bytes(inputs.available), _as_bytes(inputs.keep), inputs.seed)


def kernel_labels(inputs: Inputs) -> Tensor | None:
    """The same of its labels."""
    return None if inputs.labels is None else inputs.labels.contiguous()


def _as_bytes(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous().view(torch.uint8)


def compile_options(configuration: Configuration) -> dict[str, Any]:
    """Launch options; newer versions of Triton ask for a decision on fused multiply-add, which the kernels want."""
    return {"num_warps": configuration.num_warps, "enable_fp_fusion": True}
