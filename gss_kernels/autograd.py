"""The losses for autograd: the hand-written passes of a backend, joined. Under `torch.compile` they are operators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.distributed import ProcessGroup

from gss_kernels.backends import Loss, backend_of
from gss_kernels.settings import Backend
from gss_kernels.tensors import GroupLogits, Inputs

ONCE = "the fused losses can be differentiated once only: for second derivatives, backend='reference'"
REVERSE_ONLY = (
    "the fused losses know reverse-mode gradients by torch.autograd only: for transforms of torch.func (grad, vmap, "
    "jvp, ...) and forward-mode gradients use backend='reference'"
)

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class _Run(NamedTuple):
    """A call on its way through autograd: `GSSCall` or `SegmentationCall`."""

    call: Any
    loss: Loss
    backend: Backend
    process_group: ProcessGroup | None
    num_logits: int
    stacked: bool
    keep: bool

    def inputs(self, tensors: tuple[Tensor, ...]) -> Inputs:
        """The tensors in order again."""
        return Inputs(GroupLogits(tensors[: self.num_logits], self.stacked), *tensors[self.num_logits :])

    def arguments(self, tensors: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """What the operators take."""
        return (
            list(tensors[: self.num_logits]),
            *tensors[self.num_logits :],
            self.stacked,
            self.backend,
            *self.call.numbers(),
        )


def fused_loss(
    inputs: Inputs, call: Any, loss: Loss, backend: Backend, process_group: ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    """The value, differentiable in the logits, and the other results, which are not."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        raise RuntimeError(REVERSE_ONLY)
    logits, *others = inputs
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in logits.tensors)
    run = _Run(call, loss, backend, process_group, len(logits.tensors), logits.stacked, keep)
    value, results = _FusedLoss.apply(run, *logits.tensors, *others)  # type: ignore[no-untyped-call]
    return value, results


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: _Run, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        if torch.compiler.is_compiling():
            operator = getattr(torch.ops.gss_kernels, f"{run.loss}_forward")
            value, results = operator(*run.arguments(tensors))
            saved = results
        else:
            inputs = run.inputs(tensors)
            value, results, ctx.kept = backend_of(run.loss, run.backend).forward(inputs, run.call, keep=run.keep)
            if run.process_group is not None:
                value, results = run.call.join(value, results, inputs, run.process_group)
            # Callers get other parts of it than the coefficients, and may change these.
            saved = results.data
        ctx.run = run
        # All other tensors are saved as they are, and nowhere else kept: PyTorch notices if they are changed in place
        # before the backward pass, and frees them after it.
        ctx.save_for_backward(saved, *tensors)
        ctx.mark_non_differentiable(results)
        ctx.set_materialize_grads(False)
        return value, results

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        run: _Run = ctx.run
        if upstream is None:
            return (None,) * len(ctx.needs_input_grad)
        results, *saved = ctx.saved_tensors
        tensors = tuple(saved)
        others = (None,) * (len(tensors) - run.num_logits)
        if torch.compiler.is_compiling():
            operator = getattr(torch.ops.gss_kernels, f"{run.loss}_backward")
            return (None, *operator(*run.arguments(tensors), results, upstream), *others)
        kept, ctx.kept = ctx.kept, None
        inputs, scale = run.inputs(tensors), upstream
        if run.process_group is not None:
            results, scale = run.call.weigh(results, upstream, inputs, run.process_group)
        gradients = backend_of(run.loss, run.backend).backward(inputs, run.call, results, scale, kept)
        return (None, *_differentiable_once(gradients, upstream, *inputs.logits.tensors), *others)


def by_hand(passes: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """A pass that PyTorch's operators compute: autograd does not look at it, and autocast does not change it.

    Autocast would have matrix products in half precision.
    """

    @functools.wraps(passes)
    def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return passes(*args, **kwargs)

    return run


def _differentiable_once(gradients: tuple[Tensor, ...], *dependencies: Tensor) -> tuple[Tensor, ...]:
    """Gradients that refuse to be differentiated again with respect to what they depend on.

    Without it a second derivative would be taken for zero: under `create_graph=True` a hand-written backward pass
    returns tensors without history.
    """
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in dependencies):
        return gradients
    results: tuple[Tensor, ...] = _DifferentiableOnce.apply(len(gradients), *gradients, *dependencies)  # type: ignore[no-untyped-call]
    return results


class _DifferentiableOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG004
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ARG004
        raise RuntimeError(ONCE)
