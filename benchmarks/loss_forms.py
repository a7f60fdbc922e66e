"""The fused losses in the forms in which they are called, as steps of a forward and a backward pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.drawing import draw_labels, draw_logits
from benchmarks.steps import LossStep, taking_turns
from gss_kernels import BRATS_2015, BRATS_2018, fused_gss_loss, fused_gss_objective, fused_segmentation_loss
from gss_kernels.settings import Backend

LossName = Literal["gss", "objective", "segmentation"]
LOSSES: tuple[LossName, ...] = ("gss", "objective", "segmentation")
GROUPS = {4: BRATS_2018, 5: BRATS_2015}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SAMPLES, MODALITIES = 2, 4
_SEED = 3


@dataclass(frozen=True)
class LossForm:
    """One loss of fixed arguments.

    Attributes:
        loss: its name.
        categories: C, 4 or 5.
        dtype: of the logits, a name of `DTYPES`.
        edge: voxels along each axis.
        training: as the training objective calls it: a tensor for each modality, and `available`, all true. Else all
            modalities in one tensor, and no `available`.
    """

    loss: LossName
    categories: int
    dtype: str
    edge: int
    training: bool = True

    def __str__(self) -> str:
        form = "training form" if self.training else "one tensor"
        return f"{self.loss}, C = {self.categories}, {self.edge}^3 {self.dtype}, {form}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all logits together; the supervised loss is of one prediction."""
        modalities = 1 if self.loss == "segmentation" else MODALITIES
        return (SAMPLES, modalities, self.categories, *(self.edge,) * 3)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of the labels."""
        return (SAMPLES, *(self.edge,) * 3)

    def step(self, device: torch.device, backend: Backend) -> LossStep:
        """Of random logits and labels."""
        logits = draw_logits(self.shape, DTYPES[self.dtype], device)
        labels = draw_labels(self.label_shape, self.categories, device)
        return self.step_of(logits, labels, backend)

    def step_of(self, logits: Tensor, labels: Tensor, backend: Backend) -> LossStep:
        """Of given ones."""
        inputs = [self._inputs(own) for own in taking_turns(logits)]
        label_bytes = 0 if self.loss == "gss" else labels.nbytes
        return _FormStep(self._call(labels, backend), logits, inputs, label_bytes)

    def _inputs(self, logits: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.loss == "segmentation":
            return _leaf(logits[:, 0])
        return tuple(map(_leaf, logits.unbind(1))) if self.training else _leaf(logits)

    def _call(self, labels: Tensor, backend: Backend) -> Callable[[Any], Tensor]:
        options: dict[str, Any] = {"backend": backend}
        if self.training and self.loss != "segmentation":
            options["available"] = torch.ones(self.shape[:2], dtype=torch.bool, device=labels.device)
        groups = GROUPS[self.categories]
        if self.loss == "gss":
            return lambda inputs: fused_gss_loss(inputs, groups, seed=_SEED, **options)
        if self.loss == "objective":
            return lambda inputs: fused_gss_objective(inputs, labels, groups, seed=_SEED, **options)
        return lambda inputs: sum(fused_segmentation_loss(inputs, labels, **options))  # type: ignore[return-value]


class _FormStep(LossStep):
    """A step whose inputs may be several tensors each."""

    def __init__(
        self,
        loss: Callable[[Any], Tensor],
        logits: Tensor,
        inputs: list[Tensor | tuple[Tensor, ...]],
        label_bytes: int,
    ) -> None:
        super().__init__(loss, [logits], label_bytes=label_bytes)
        self._turns = itertools.cycle(inputs)  # type: ignore[arg-type]


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().requires_grad_()
