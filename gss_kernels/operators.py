"""The raw passes of the losses as PyTorch operators, which `torch.compile` takes as they are.

`gss_kernels::gss_forward` and `gss_backward` are the GSS loss, alone or with the segmentation losses of the logits;
`segmentation_forward` and `segmentation_backward` that of one prediction. They know no autograd. An operator takes
tensors and numbers only: a call's numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gss_kernels.backends import Loss, backend_of
from gss_kernels.layout import addressed, empty_gradients
from gss_kernels.settings import Backend
from gss_kernels.tensors import GroupLogits, Inputs, check_label_values

_TENSORS = "Tensor[] logits, Tensor? labels, Tensor? available, Tensor? keep, Tensor? seed, bool stacked, str backend"
_NUM_LEADING = 7
_LIBRARY = torch.library.Library("gss_kernels", "DEF")  # type: ignore[no-untyped-call]


def register(
    loss: Loss, schema: str, call_of: Callable[..., Any], empty: Callable[[Inputs, Any], tuple[Tensor, Tensor]]
) -> None:
    """Register the operators of a loss.

    Args:
        loss: which of the two.
        schema: of a call's numbers.
        call_of: makes the call of its numbers.
        empty: uninitialised value and results of a call.
    """

    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        inputs, call, backend = opened(arguments)
        if inputs.labels is not None:
            check_label_values(inputs.labels, inputs.logits.shape[2], inputs.available, call.ignore_index)
        value, results, _ = backend_of(loss, backend).forward(inputs, call, keep=False)
        return value, results

    def backward(*arguments: Any) -> list[Tensor]:
        inputs, call, backend = opened(arguments[:-2])
        return list(backend_of(loss, backend).backward(inputs, call, *arguments[-2:], None))

    def fake_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        inputs, call, _ = opened(arguments)
        return empty(inputs, call)

    def fake_backward(*arguments: Any) -> list[Tensor]:
        inputs, _, backend = opened(arguments[:-2])
        if backend == "cpu":
            return [tensor.new_empty(tensor.shape) for tensor in inputs.logits.tensors]
        return list(empty_gradients(addressed(inputs.logits)[0])[0].tensors)

    def opened(arguments: tuple[Any, ...]) -> tuple[Inputs, Any, Backend]:
        logits, *others, stacked, backend = arguments[:_NUM_LEADING]
        return Inputs(GroupLogits(tuple(logits), stacked), *others), call_of(*arguments[_NUM_LEADING:]), backend

    _define(f"{loss}_forward({_TENSORS}, {schema}) -> (Tensor, Tensor)", forward, fake_forward)
    _define(
        f"{loss}_backward({_TENSORS}, {schema}, Tensor results, Tensor upstream) -> Tensor[]", backward, fake_backward
    )


def _define(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> None:
    name = schema[: schema.index("(")]
    _LIBRARY.define(schema)  # type: ignore[no-untyped-call]
    torch.library.impl(_LIBRARY, name, "CompositeExplicitAutograd")(kernel)
    torch.library.register_fake(f"gss_kernels::{name}", fake, lib=_LIBRARY)
