"""One call of the GSS loss: what every backend takes besides the tensors, and what it returns."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from gss_kernels.across_processes import add_up, join_batches
from gss_kernels.operators import register
from gss_kernels.settings import GSSSettings
from gss_kernels.tensors import GroupLogits, Inputs

_KINDS = {float: "float", bool: "bool"}
_NUM_SETTINGS = len(GSSSettings._fields)


class GSSCall(NamedTuple):
    """Checked arguments but the tensors."""

    settings: GSSSettings
    leaders: tuple[tuple[int, ...], ...]  # of every category
    supervised_weight: float = 0.0  # with labels, of the sum of the segmentation losses in the total
    gss_weight: float = 1.0  # of the GSS loss in the total
    ignore_index: int | None = None  # the label that the segmentation losses ignore
    per_sample: bool = False  # the value is the GSS loss of each sample and modality, `[B, M]`, and not the total
    statistics: bool = False  # routes and agreement are counted

    def numbers(self) -> tuple[Any, ...]:
        """All of it as an operator takes it."""
        settings, leaders, *rest = self
        return *settings, [sum(1 << modality for modality in indices) for indices in leaders], *rest

    @classmethod
    def of_numbers(cls, *numbers: Any) -> GSSCall:
        """The call again."""
        bits, *rest = numbers[_NUM_SETTINGS:]
        leaders = tuple(tuple(m for m in range(own.bit_length()) if own >> m & 1) for own in bits)
        return cls(GSSSettings(*numbers[:_NUM_SETTINGS]), leaders, *rest)

    def join(self, value: Tensor, results: Tensor, inputs: Inputs, group: ProcessGroup) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Value and results with the segmentation losses of all processes' batches; the GSS loss is this one's."""
        results = results.clone()
        own = GSSResults.of(results, inputs, self)
        segmentation, coefficients = join_batches(own.terms[:-1].view(2, -1), own.coefficients, group)
        own.coefficients.copy_(coefficients)
        own.terms[:-1] = segmentation.flatten()
        return self.supervised_weight * segmentation.sum() + self.gss_weight * own.terms[-1], results

    def weigh(self, results: Tensor, upstream: Tensor, inputs: Inputs, group: ProcessGroup) -> tuple[Tensor, Tensor]:
        """The results and the upstream gradient that the backward pass takes after `join`.

        The gradient is linear in the coefficients: those of the GSS loss take this process's upstream gradient, the
        other three the sum of all processes'.
        """
        of_all = add_up(upstream, group)
        factors = torch.stack((upstream, of_all, of_all, of_all))
        weighed = results.clone()
        GSSResults.of(weighed, inputs, self).coefficients.mul_(factors[:, None, None, None])
        return weighed, torch.ones_like(upstream)


class GSSResults(NamedTuple):
    """Views of the buffer of results, in order; without elements for what was not asked for.

    Attributes:
        coefficients: `[1 or 4, B, M, C]`, what the backward pass needs: the category weights W; with labels the weight
            of the cross-entropy, and alpha and beta of the Dice's derivative `alpha_c y_c + beta_c`.
        terms: with labels cross-entropy and Dice of each modality, `[2 M]`, then the GSS loss's mean.
        routes: `[C, 4]`, share of the voxels that took each route.
        agreement: `[M]`, share of the voxels where modality and target prefer the same category.
    """

    coefficients: Tensor
    terms: Tensor
    routes: Tensor
    agreement: Tensor

    @classmethod
    def of(cls, buffer: Tensor, inputs: Inputs, call: GSSCall) -> GSSResults:
        """Views of a call's buffer."""
        shapes = result_shapes(inputs.logits.shape, inputs.labels is not None, call.statistics)
        parts = torch.split(buffer, [math.prod(shape) for shape in shapes])
        return cls(*(part.view(shape) for part, shape in zip(parts, shapes, strict=True)))


def result_shapes(shape: tuple[int, int, int], segmented: bool, statistics: bool) -> tuple[tuple[int, ...], ...]:
    """Of the parts of `GSSResults`, for B, M, C."""
    B, M, C = shape
    return (
        (4 if segmented else 1, B, M, C),
        (2 * M + 1 if segmented else 1,),
        (C if statistics else 0, 4),
        (M if statistics else 0,),
    )


def empty(inputs: Inputs, call: GSSCall) -> tuple[Tensor, Tensor]:
    """Uninitialised value and results."""
    logits: GroupLogits = inputs.logits
    like = logits.tensors[0].new_empty((), dtype=logits.compute_dtype)
    value = like.new_empty(logits.shape[:2] if call.per_sample else ())
    shapes = result_shapes(logits.shape, inputs.labels is not None, call.statistics)
    return value, like.new_empty(sum(math.prod(shape) for shape in shapes))


_SETTINGS = ", ".join(f"{_KINDS.get(kind, 'str')} {name}" for name, kind in get_type_hints(GSSSettings).items())
_REST = "float supervised_weight, float gss_weight, int? ignore_index, bool per_sample, bool statistics"
register("gss", f"{_SETTINGS}, int[] leaders, {_REST}", GSSCall.of_numbers, empty)
