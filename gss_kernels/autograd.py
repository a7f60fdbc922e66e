"""What the hand-written backward passes share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

ONCE = "the fused losses can be differentiated once only: for second derivatives, backend='reference'"


REVERSE_ONLY = (
    "the fused losses know reverse-mode gradients by torch.autograd only: for transforms of torch.func (grad, vmap, "
    "jvp, ...) use backend='reference'"
)

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def by_hand(passes: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """A hand-written pass: autograd does not look at it, and autocast does not change it.

    Autocast would have matrix products in half precision.
    """

    @functools.wraps(passes)
    def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return passes(*args, **kwargs)

    return run


def refuse_transforms() -> None:
    """Raise RuntimeError inside a transform of `torch.func`, which would hand wrapped tensors to the kernels."""
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(REVERSE_ONLY)


def differentiable_once(gradients: tuple[Tensor, ...], *dependencies: Tensor) -> tuple[Tensor, ...]:
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
