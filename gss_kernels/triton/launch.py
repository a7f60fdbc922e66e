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
        wanted = triton.cdiv(configuration.programs_per_multiprocessor * self.multiprocessors, layout.num_samples)
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

    logits, layout = addressed(inputs.logits)
    configuration = configuration_for(_launch(kernels.names[0], inputs, layout), kernels.forward, again)
    plan = _plan(kernels, inputs, call, layout, configuration)
    programs = plan.walk.programs
    empty = functools.partial(torch.empty, dtype=torch.float32, device=logits.device)
    partials, value, results = (
        empty((layout.num_samples, plan.forward.rows, programs)),
        empty(plan.value),
        empty(sum(plan.sizes)),
    )
    masks = kernel_masks(inputs)
    with on_device_of(partials):
        kernels.forward[layout.num_samples * programs,](
            kernel_volumes(logits, layout),
            masks,
            kernel_labels(inputs),
            partials,
            plan.walk,
            plan.numbers,
            form=plan.forward,
            **compile_options(configuration),
        )
        kernels.finish[1,](
            partials,
            masks.available,
            value,
            results,
            plan.places,
            plan.walk,
            plan.weights,
            layout.num_voxels,
            form=plan.finish,
            **compile_options(FINISH),
        )
    return value, results, plan


def backward(kernels: Kernels, inputs: Inputs, call: Any, results: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    """The gradient in the logits' form under that of the value: one launch."""
    logits, layout = addressed(inputs.logits)
    launch = _launch(kernels.names[1], inputs, layout)
    configuration = configuration_for(
        launch, kernels.backward, lambda: backward(kernels, inputs, call, results, upstream)
    )
    plan = _plan(kernels, inputs, call, layout, configuration)
    gradients = empty_gradients(logits)
    with on_device_of(results):
        kernels.backward[layout.num_samples * plan.walk.blocks,](
            kernel_volumes(logits, layout),
            kernel_masks(inputs),
            kernel_labels(inputs),
            kernel_volumes(*addressed(gradients)),
            results,
            Upstream(upstream, upstream.stride() or (0, 0), *plan.scales),
            plan.walk,
            plan.numbers,
            form=plan.blockwise,
            **compile_options(configuration),
        )
    return gradients.tensors


def _launch(kernel: KernelName, inputs: Inputs, layout: Layout) -> Launch:
    logits, segmented = inputs.logits, inputs.labels is not None
    return Launch(kernel, layout.num_modalities, layout.num_categories, segmented, logits.dtype, logits.device)


def _plan(kernels: Kernels, inputs: Inputs, call: Any, layout: Layout, configuration: Configuration) -> Plan:
    has = (inputs.labels is not None, inputs.available is not None)
    return kernels.plan(layout, call, *has, configuration, Card.of(inputs.logits.device))


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
