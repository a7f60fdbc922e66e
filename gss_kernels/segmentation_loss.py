"""The supervised loss of one prediction for autograd: hand-written passes of a backend, joined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gss_kernels.autograd import REVERSE_ONLY, differentiable_once, refuse_transforms
from gss_kernels.backends import segmentation_passes
from gss_kernels.inputs import optional
from gss_kernels.operators import segmentation_loss_operator
from gss_kernels.reference import reference_segmentation_loss
from gss_kernels.settings import Backend
from gss_kernels.supervised_settings import InputKind


def segmentation_loss(
    prediction: Tensor, labels: Tensor, input_kind: InputKind, available: Tensor | None, backend: Backend
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice, 0-dim and differentiable in the prediction."""
    from_logits = input_kind == "logits"
    if backend == "reference":
        return reference_segmentation_loss(prediction, labels, input_kind, available)
    if torch.compiler.is_compiling():
        terms = segmentation_loss_operator(prediction, labels, available, from_logits, backend)
    else:
        refuse_transforms()
        terms = _SegmentationLoss.apply(backend, from_logits, available, labels, prediction)  # type: ignore[no-untyped-call]
    cross_entropy, dice = terms.unbind()
    return cross_entropy, dice


class _SegmentationLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, backend: Backend, from_logits: bool, available: Tensor | None, labels: Tensor, prediction: Tensor
    ) -> Tensor:
        forward, _ = segmentation_passes(backend)
        terms, coefficients = forward(prediction, labels, available, from_logits=from_logits)
        ctx.backend, ctx.from_logits = backend, from_logits
        # All tensors are saved: PyTorch then notices if they are changed in place before the backward pass.
        ctx.save_for_backward(coefficients, prediction, labels, *optional(available))
        return terms

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        coefficients, prediction, labels, *rest = ctx.saved_tensors
        _, backward = segmentation_passes(ctx.backend)
        available = rest[0] if rest else None
        gradient = backward(prediction, labels, available, coefficients, upstream, from_logits=ctx.from_logits)
        return (None, None, None, None, *differentiable_once((gradient,), upstream, prediction))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:  # noqa: ARG004
        raise RuntimeError(REVERSE_ONLY)
