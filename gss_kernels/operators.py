"""The passes of the losses as PyTorch operators, which `torch.compile` takes as they are.

`gss_kernels::group_forward` and `..._backward` are the GSS loss, alone or with the supervised loss of the same logits;
`gss_kernels::segmentation_forward` and `..._backward` the supervised loss of one prediction. An operator takes tensors
and numbers only: a call is taken apart before it and put together again inside.
Outside of `torch.compile` the losses do without operators and their dispatch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gss_kernels.autograd import ONCE
from gss_kernels.backends import group_passes, segmentation_passes
from gss_kernels.call import GroupCall, GroupResults, Supervision, empty_results
from gss_kernels.groups import CategoryGroups
from gss_kernels.inputs import GroupLogits, VoxelMask, check_label_values, compute_dtype_of
from gss_kernels.layout import addressable, empty_gradients
from gss_kernels.settings import Backend, DistillationSettings, VoteSettings

_CALL = (
    "Tensor[] logits, Tensor? labels, Tensor? available, Tensor? keep, Tensor? seed, bool stacked, int[] leaders, "
    "float[] vote, float[] distillation, float[] weights, bool statistics, str backend"
)
_NUM_ARGUMENTS, _NUM_TENSOR_ARGUMENTS = 12, 5
_SEGMENTATION_CALL = "Tensor prediction, Tensor labels, Tensor? available, bool from_logits, str backend"
_LIBRARY = torch.library.Library("gss_kernels", "DEF")  # type: ignore[no-untyped-call]
_Function = Callable[..., Any]


def group_loss_operator(logits: GroupLogits, call: GroupCall, backend: Backend) -> GroupResults:
    """`gss_kernels::group_forward` of a call."""
    return GroupResults(*torch.ops.gss_kernels.group_forward(*_take_apart(logits, call, backend)))


def _take_apart(logits: GroupLogits, call: GroupCall, backend: Backend) -> tuple[Any, ...]:
    vote, distillation, supervision = call.vote, call.distillation, call.supervision
    return (
        list(logits.tensors),
        None if supervision is None else supervision.labels,
        call.available,
        call.mask.keep,
        call.mask.seed,
        logits.stacked,
        [sum(1 << modality for modality in leaders) for leaders in call.groups.leaders],
        [
            vote.temperature,
            vote.leader_threshold,
            vote.member_threshold,
            vote.leader_blend,
            float(vote.semantics == "released"),
        ],
        [
            float(distillation.divergence == "kl"),
            float(distillation.class_weighting),
            distillation.clamp,
            call.mask.ratio,
        ],
        [call.supervised_weight, call.gss_weight],
        call.statistics,
        backend,
    )


def _put_together(
    logits: list[Tensor],
    labels: Tensor | None,
    available: Tensor | None,
    keep: Tensor | None,
    seed: Tensor | None,
    stacked: bool,
    leaders: list[int],
    vote: list[float],
    distillation: list[float],
    weights: list[float],
    statistics: bool,
    backend: Backend,
) -> tuple[GroupLogits, GroupCall, Backend]:
    kl, class_weighting, clamp, mask_ratio = distillation
    call = GroupCall(
        CategoryGroups(tuple(tuple(m for m in range(bits.bit_length()) if bits >> m & 1) for bits in leaders)),
        VoteSettings(vote[0], vote[1], vote[2], vote[3], "released" if vote[4] else "paper"),
        DistillationSettings("kl" if kl else "cross_entropy", bool(class_weighting), clamp),
        VoxelMask(seed, mask_ratio, keep),
        available,
        None if labels is None else Supervision(labels, weights[0], weights[1]),
        statistics,
    )
    return GroupLogits(tuple(logits), stacked), call, backend


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    logits, call, backend = _put_together(*arguments)
    if call.supervision is not None:
        check_label_values(call.supervision.labels, logits.num_categories, call.available)
    results, _ = group_passes(backend)[0](logits, call, keep=False)
    return tuple(results)


def _fake_forward(*arguments: Any) -> tuple[Tensor, ...]:
    tensors, labels, stacked, statistics = arguments[0], arguments[1], arguments[5], arguments[10]
    logits = GroupLogits(tuple(tensors), stacked)
    like = tensors[0].new_empty((), dtype=logits.compute_dtype)
    return tuple(empty_results(logits, like, supervised=labels is not None, statistics=statistics))


def _backward(*arguments: Any) -> list[Tensor]:
    logits, call, backend = _put_together(*arguments[:_NUM_ARGUMENTS])
    coefficients, upstream = arguments[_NUM_ARGUMENTS:]
    return list(group_passes(backend)[1](logits, call, coefficients, upstream, None))


def _fake_backward(*arguments: Any) -> list[Tensor]:
    logits = GroupLogits(tuple(arguments[0]), arguments[5])
    return list(_fake_gradients(logits, arguments[_NUM_ARGUMENTS - 1]).tensors)


def _fake_gradients(logits: GroupLogits, backend: Backend) -> GroupLogits:
    if backend == "cpu":
        return GroupLogits(tuple(tensor.new_empty(tensor.shape) for tensor in logits.tensors), logits.stacked)
    return empty_gradients(addressable(logits))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    logits, *others = inputs[:_NUM_TENSOR_ARGUMENTS]
    results = GroupResults(*output)
    ctx.num_logits, ctx.numbers = len(logits), inputs[_NUM_TENSOR_ARGUMENTS:]
    ctx.save_for_backward(results.coefficients, *logits, *others)
    ctx.mark_non_differentiable(results.terms, results.coefficients, results.routes, results.agreement)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, total: Tensor | None, losses: Tensor | None, *_: Tensor | None) -> tuple[Any, ...]:
    coefficients, *tensors = ctx.saved_tensors
    logits, others = tensors[: ctx.num_logits], tensors[ctx.num_logits :]
    gradients: list[Tensor] | None = None
    for upstream in (total, losses):
        if upstream is not None:
            own = torch.ops.gss_kernels.group_backward(logits, *others, *ctx.numbers, coefficients, upstream)
            gradients = own if gradients is None else [a + b for a, b in zip(gradients, own, strict=True)]
    return (gradients, *[None] * (_NUM_ARGUMENTS - 1))


def segmentation_loss_operator(
    prediction: Tensor, labels: Tensor, available: Tensor | None, from_logits: bool, backend: Backend
) -> Tensor:
    """`gss_kernels::segmentation_forward`: cross-entropy and Dice, `[2]`."""
    terms: Tensor = torch.ops.gss_kernels.segmentation_forward(prediction, labels, available, from_logits, backend)[0]
    return terms


def _segmentation_forward(
    prediction: Tensor, labels: Tensor, available: Tensor | None, from_logits: bool, backend: Backend
) -> tuple[Tensor, Tensor]:
    check_label_values(labels, prediction.shape[1], available)
    forward, _ = segmentation_passes(backend)
    return forward(prediction, labels, available, from_logits=from_logits)


def _fake_segmentation_forward(prediction: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    terms = prediction.new_empty(2, dtype=compute_dtype_of(prediction))
    return terms, terms.new_empty(4, prediction.shape[0], 1, prediction.shape[1])


def _segmentation_backward(
    prediction: Tensor,
    labels: Tensor,
    available: Tensor | None,
    from_logits: bool,
    backend: Backend,
    coefficients: Tensor,
    upstream: Tensor,
) -> Tensor:
    _, backward = segmentation_passes(backend)
    return backward(prediction, labels, available, coefficients, upstream, from_logits=from_logits)


def _fake_segmentation_backward(prediction: Tensor, *rest: Any) -> Tensor:
    return _fake_gradients(GroupLogits((prediction,), stacked=False), rest[3]).tensors[0]


def _save_segmentation(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    prediction, labels, available, *ctx.numbers = inputs
    ctx.save_for_backward(output[1], prediction, labels, available)
    ctx.mark_non_differentiable(output[1])


def _segmentation_gradient(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    coefficients, *tensors = ctx.saved_tensors
    gradient = torch.ops.gss_kernels.segmentation_backward(*tensors, *ctx.numbers, coefficients, upstream)
    return gradient, None, None, None, None


def _no_second_gradient(ctx: Any, *_: Any) -> None:  # noqa: ARG001
    raise RuntimeError(ONCE)


def _register(schema: str, kernel: _Function, fake: _Function, gradient: _Function, save: _Function | None) -> None:
    name = schema[: schema.index("(")]
    _LIBRARY.define(schema)  # type: ignore[no-untyped-call]
    torch.library.impl(_LIBRARY, name, "CompositeExplicitAutograd")(kernel)
    torch.library.register_fake(f"gss_kernels::{name}", fake, lib=_LIBRARY)
    torch.library.register_autograd(f"gss_kernels::{name}", gradient, setup_context=save, lib=_LIBRARY)


_SIX_TENSORS = ", ".join(["Tensor"] * 6)
_register(f"group_forward({_CALL}) -> ({_SIX_TENSORS})", _forward, _fake_forward, _gradient, _save)
_register(
    f"group_backward({_CALL}, Tensor coefficients, Tensor upstream) -> Tensor[]",
    _backward,
    _fake_backward,
    _no_second_gradient,
    None,
)
_register(
    f"segmentation_forward({_SEGMENTATION_CALL}) -> (Tensor, Tensor)",
    _segmentation_forward,
    _fake_segmentation_forward,
    _segmentation_gradient,
    _save_segmentation,
)
_register(
    f"segmentation_backward({_SEGMENTATION_CALL}, Tensor coefficients, Tensor upstream) -> Tensor",
    _segmentation_backward,
    _fake_segmentation_backward,
    _no_second_gradient,
    None,
)
