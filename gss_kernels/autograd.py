"""What the hand-written backward passes share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
        raise RuntimeError(
            "fused_gss_loss can be differentiated once only: for second derivatives, backend='reference'"
        )
