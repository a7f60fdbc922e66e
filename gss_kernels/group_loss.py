"""The group loss for autograd: hand-written passes of a backend, joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gss_kernels.across_processes import join_batches, weigh
from gss_kernels.autograd import REVERSE_ONLY, differentiable_once, refuse_transforms
from gss_kernels.backends import group_passes
from gss_kernels.call import GroupCall, GroupResults
from gss_kernels.inputs import GroupLogits
from gss_kernels.operators import group_loss_operator
from gss_kernels.reference import reference_group_loss
from gss_kernels.settings import Backend


def group_loss(logits: GroupLogits, call: GroupCall, backend: Backend) -> GroupResults:
    """The results, of which `total` and `losses` are differentiable in the logits."""
    if backend == "reference":
        return reference_group_loss(logits, call)
    if torch.compiler.is_compiling():
        return group_loss_operator(logits, call, backend)
    refuse_transforms()
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in logits.tensors)
    run = _Run(call, backend, logits.stacked, keep)
    results: tuple[Tensor, ...] = _GroupLoss.apply(run, *logits.tensors)  # type: ignore[no-untyped-call]
    return GroupResults(*results)


@dataclass
class _Run:
    """A call on its way through autograd; `kept` is the backend's own, for the first backward pass."""

    call: GroupCall
    backend: Backend
    stacked: bool
    keep: bool
    kept: Any = None


def _joined(results: GroupResults, call: GroupCall) -> GroupResults:
    """With a process group the results for which supervision is that of all processes' batches."""
    if call.process_group is None:
        return results
    own, gss = results.terms[:-1].view(2, -1), results.terms[-1:]
    supervised, coefficients = join_batches(own, results.coefficients, call.available, call.process_group)
    total = call.supervised_weight * supervised.sum() + call.gss_weight * gss[0]
    return results._replace(total=total, terms=torch.cat((supervised.flatten(), gss)), coefficients=coefficients)


class _GroupLoss(torch.autograd.Function):
    @staticmethod
    def forward(run: _Run, *tensors: Tensor) -> tuple[Tensor, ...]:
        run_forward = group_passes(run.backend)[0]
        results, run.kept = run_forward(GroupLogits(tensors, run.stacked), run.call, keep=run.keep)
        return tuple(_joined(results, run.call))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        run, *tensors = inputs
        results = GroupResults(*output)
        ctx.run, ctx.num_tensors = run, len(tensors)
        # All tensors are saved, and nowhere else kept: PyTorch notices if they are changed in place before the backward
        # pass, and frees them after it.
        ctx.save_for_backward(results.coefficients, *tensors, *run.call.tensors())
        run.call = run.call.without_memory()
        ctx.mark_non_differentiable(results.terms, results.coefficients, results.routes, results.agreement)
        # A launch less: only one of the two differentiable results is used, as a rule.
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, total: Tensor | None, losses: Tensor | None, *_: Tensor | None) -> tuple[Any, ...]:
        run: _Run = ctx.run
        coefficients, *tensors = ctx.saved_tensors
        tensors, others = tensors[: ctx.num_tensors], tensors[ctx.num_tensors :]
        call = run.call.with_tensors(*others)
        run_backward = group_passes(run.backend)[1]
        sums: list[Tensor | None] = [None] * ctx.num_tensors
        for upstream in (total, losses):
            if upstream is None:
                continue
            kept, run.kept = run.kept, None
            weighed, scale = coefficients, upstream
            if upstream is total and call.process_group is not None:
                weighed, scale = weigh(coefficients, upstream, call.process_group)
            gradients = run_backward(GroupLogits(tuple(tensors), run.stacked), call, weighed, scale, kept)
            gradients = differentiable_once(gradients, upstream, *tensors)
            sums = [own if sum_ is None else sum_ + own for sum_, own in zip(sums, gradients, strict=True)]
        return (None, *sums)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:  # noqa: ARG004
        raise RuntimeError(REVERSE_ONLY)
