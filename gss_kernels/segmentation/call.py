"""One call of the segmentation loss: what every backend takes besides the tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.distributed import ProcessGroup

from gss_kernels.across_processes import add_up, join_batches
from gss_kernels.operators import register
from gss_kernels.tensors import Inputs


class SegmentationCall(NamedTuple):
    """Checked arguments but the tensors.

    The value is cross-entropy and Dice, `[2]`; the results are what the backward pass needs, `[4, B, 1, C]` as in
    `GSSResults`, of which the first kind is not used.
    """

    from_logits: bool  # whether the prediction lacks its softmax
    ignore_index: int | None = None  # the label that is ignored

    def numbers(self) -> tuple[Any, ...]:
        """All of it as an operator takes it."""
        return tuple(self)

    def join(self, value: Tensor, results: Tensor, inputs: Inputs, group: ProcessGroup) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Value and results for the batches of all processes together."""
        joined, coefficients = join_batches(value[:, None], results, group)
        return joined[:, 0], coefficients

    def weigh(self, results: Tensor, upstream: Tensor, inputs: Inputs, group: ProcessGroup) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """The results and the upstream gradient that the backward pass takes after `join`."""
        return results, add_up(upstream, group)


def empty(inputs: Inputs, call: SegmentationCall) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """Uninitialised value and results."""
    logits = inputs.logits
    value = logits.tensors[0].new_empty(2, dtype=logits.compute_dtype)
    return value, value.new_empty((4, *logits.shape))


register("segmentation", "bool from_logits, int? ignore_index", SegmentationCall, empty)
