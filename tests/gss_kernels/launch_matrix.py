"""Calls of the public functions in the forms that people use, and the code that Triton would compile for them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.stub_card import Specialisation, noted_specialisations
from gss_kernels import (
    BRATS_2015,
    BRATS_2018,
    fused_gss_loss,
    fused_gss_objective,
    fused_segmentation_loss,
    gss_soft_targets,
)
from tests.gss_kernels.pairwise import Row, covering_rows

_MODALITIES = 4
_GROUPS = {4: BRATS_2018, 5: BRATS_2015}
OPTIONS: dict[str, tuple[Any, ...]] = {
    "function": ("gss", "objective", "segmentation", "targets"),
    "samples": (1, 2, 3, 4),
    "space": ((32,) * 3, (48,) * 3, (80,) * 3, (128,) * 3, (33, 35, 37), (7, 9, 4)),
    "multiprocessors": (80, 108, 132, 148),
    "dtype": (torch.float32, torch.bfloat16),
    "has_available": (False, True),
    "sequence": (False, True),
    "statistics": (False, True),
    "categories": (4, 5),
}
"""`statistics` of a function without them: probabilities for the segmentation loss, nothing for the targets."""


@dataclass(frozen=True)
class PublicCall:
    """A call, with its backward pass, on memory that nobody touches; fields as in `OPTIONS`."""

    function: str
    samples: int
    space: tuple[int, int, int]
    multiprocessors: int
    dtype: torch.dtype
    has_available: bool
    sequence: bool
    statistics: bool
    categories: int

    def __call__(self) -> None:
        shape = (self.samples, self.categories, *self.space)
        if self.sequence:
            leaves = [torch.empty(shape, dtype=self.dtype, requires_grad=True) for _ in range(_MODALITIES)]
        else:
            whole = (self.samples, _MODALITIES, self.categories, *self.space)
            leaves = [torch.empty(whole, dtype=self.dtype, requires_grad=True)]
        value = self._value(leaves)
        if value is not None:
            torch.autograd.grad(value, leaves, allow_unused=True)

    def _value(self, leaves: list[Tensor]) -> Tensor | None:
        logits = leaves if self.sequence else leaves[0]
        groups, labels = _GROUPS[self.categories], _labels((self.samples, *self.space))
        options: dict[str, Any] = {"backend": "triton"}
        if self.function == "segmentation":
            prediction = leaves[0] if self.sequence else leaves[0][:, 0]
            if self.has_available:
                options["available"] = torch.ones(self.samples, dtype=torch.bool)
            options["input_kind"] = "probabilities" if self.statistics else "logits"
            return sum(fused_segmentation_loss(prediction, labels, **options), torch.zeros(()))
        if self.has_available:
            options["available"] = torch.ones(self.samples, _MODALITIES, dtype=torch.bool)
        if self.function == "targets":
            gss_soft_targets(logits, groups, **options)
            return None
        options |= {"seed": 1, "return_stats": self.statistics}
        if self.function == "gss":
            result = fused_gss_loss(logits, groups, **options)
        else:
            result = fused_gss_objective(logits, labels, groups, **options)
        return result[0] if self.statistics else result


@functools.cache
def _labels(shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape, dtype=torch.uint8)


def every_call() -> Iterator[PublicCall]:
    """The whole matrix."""
    for values in itertools.product(*OPTIONS.values()):
        yield PublicCall(*values)


def chosen_calls() -> list[PublicCall]:
    """Few, in which every two values of two options meet.

    The kernels of the GSS loss take longest to compile. So each function that launches them gets two combinations of
    what changes their code, which share no value; the other values meet in calls of the other functions. The seed is,
    of many, that of the least to compile.
    """
    given = [
        *_calls_of("objective", (torch.float32, False, False, False, 4), (torch.bfloat16, True, True, True, 5)),
        *_calls_of("gss", (torch.float32, True, False, True, 5), (torch.bfloat16, False, True, False, 4)),
    ]
    return [PublicCall(**row) for row in (*given, *covering_rows(OPTIONS, given, seed=23))]


def _calls_of(function: str, *combinations: tuple[Any, ...]) -> list[Row]:
    """With every space, number of samples and number of multiprocessors; a single sample in the second combination."""
    several, one = combinations
    places = (
        *((*place, *several) for place in zip((2, 3, 4), OPTIONS["space"][:3], (80, 108, 132), strict=True)),
        *((1, space, 148, *one) for space in OPTIONS["space"][3:]),
    )
    return [dict(zip(OPTIONS, (function, *place), strict=True)) for place in places]


def specialisations_of(calls: Iterable[PublicCall], target: str) -> list[Specialisation]:
    """What Triton would compile for them, each once, in an order that is the same on every call."""
    found: set[Specialisation] = set()
    by_card = sorted(calls, key=lambda call: call.multiprocessors)
    for multiprocessors, group in itertools.groupby(by_card, key=lambda call: call.multiprocessors):
        with noted_specialisations(target, multiprocessors) as noted:
            for call in group:
                call()
        found |= noted
    return sorted(found, key=lambda own: (own.name, own.key))
