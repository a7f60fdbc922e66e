"""The supervised loss of one prediction for autograd: hand-written passes of a backend, joined."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from gss_kernels.across_processes import add_up, join_batches
from gss_kernels.autograd import REVERSE_ONLY, differentiable_once, refuse_transforms
from gss_kernels.backends import segmentation_passes
from gss_kernels.inputs import optional
from gss_kernels.operators import segmentation_loss_operator
from gss_kernels.reference import reference_segmentation_loss
from gss_kernels.settings import Backend
from gss_kernels.supervised_settings import InputKind


def segmentation_loss(
    prediction: Tensor,
    labels: Tensor,
    input_kind: InputKind,
    available: Tensor | None,
    backend: Backend,
    process_group: ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice, 0-dim and differentiable in the prediction."""
    from_logits = input_kind == "logits"
    if backend == "reference":
        return reference_segmentation_loss(prediction, labels, input_kind, available)
    if torch.compiler.is_compiling():
        terms = segmentation_loss_operator(prediction, labels, available, from_logits, backend)
    else:
        refuse_transforms()
        run = _Run(backend, from_logits, process_group)
        terms = _SegmentationLoss.apply(run, available, labels, prediction)  # type: ignore[no-untyped-call]
    cross_entropy, dice = terms.unbind()
    return cross_entropy, dice


class _Run(NamedTuple):
    """What a call has besides its tensors."""

    backend: Backend
    from_logits: bool
    process_group: ProcessGroup | None


class _SegmentationLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: _Run, available: Tensor | None, labels: Tensor, prediction: Tensor) -> Tensor:
        forward, _ = segmentation_passes(run.backend)
        terms, coefficients = forward(prediction, labels, available, from_logits=run.from_logits)
        if run.process_group is not None:
            counted = None if available is None else available[:, None]
            joined, coefficients = join_batches(terms[:, None], coefficients, counted, run.process_group)
            terms = joined[:, 0]
        ctx.run = run
        # All tensors are saved: PyTorch then notices if they are changed in place before the backward pass.
        ctx.save_for_backward(coefficients, prediction, labels, *optional(available))
        return terms

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        coefficients, prediction, labels, *rest = ctx.saved_tensors
        run: _Run = ctx.run
        _, backward = segmentation_passes(run.backend)
        available = rest[0] if rest else None
        scale = upstream if run.process_group is None else add_up(upstream, run.process_group)
        gradient = backward(prediction, labels, available, coefficients, scale, from_logits=run.from_logits)
        return (None, None, None, *differentiable_once((gradient,), upstream, prediction))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:  # noqa: ARG004
        raise RuntimeError(REVERSE_ONLY)
