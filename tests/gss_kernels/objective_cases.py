"""Calls of the GSS loss with the supervised loss that every backend is run on, with what both oracles make of them."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gss_kernels import fused_gss_objective
from gss_kernels.settings import Backend
from tests.gss_kernels import cases
from tests.gss_kernels.cases import BRATS_5, SPACING, TOLERANCE, Case, close, random_absent, random_leaders
from tests.gss_kernels.oracle import Array, Settings
from tests.gss_kernels.segmentation_oracle import Labels, near_clip, segmentation

_NO_CATEGORY = {torch.uint8: 254, torch.int64: -7, torch.int16: -7}


@dataclass(frozen=True)
class ObjectiveCase:
    """One call: that of the GSS loss with labels and weights.

    `upstream` is the factor of the total, `ignored` is `ignore_index`.
    """

    call: Case
    supervised_weight: float = 1.0
    gss_weight: float = 1.0
    label_dtype: torch.dtype = torch.uint8
    upstream: float = 1.0
    ignored: int | None = None

    @property
    def name(self) -> str:
        return self.call.name


@dataclass(frozen=True)
class ObjectiveAnswer:
    """The terms, and the gradients of the supervised and the GSS loss, weighted, `[B, M, C, *spatial]`."""

    cross_entropy: Array
    dice: Array
    gss: float
    supervised_gradient: Array
    gss_gradient: Array


@dataclass(frozen=True)
class ObjectiveProblem:
    """A case's arrays: logits as for the GSS loss, labels that are no category in samples without any modality."""

    logits: Array
    labels: Labels
    answer: ObjectiveAnswer


@dataclass(frozen=True)
class ObjectiveResult:
    """What a backend returned."""

    total: Array
    cross_entropy: Array
    dice: Array
    gss: Array
    gradient: Array


@functools.cache
def problem(case: ObjectiveCase) -> ObjectiveProblem:
    """The case's arrays and the oracles' answer; the same on every call."""
    data = cases.problem(case.call)
    B, M = data.logits.shape[:2]
    available = np.ones((B, M), bool) if data.available is None else data.available
    labels = _labels_off_the_clip(case, data.logits, available)
    if case.ignored is not None:
        labels[np.random.default_rng(case.call.seed).random(labels.shape) < 0.3] = case.ignored
    supervised = [
        segmentation(data.logits[:, m], labels, "logits", available[:, m].tolist(), case.ignored) for m in range(M)
    ]
    labels[~available.any(axis=1)] = _NO_CATEGORY[case.label_dtype]
    by_modality = [answer.gradient_under(case.upstream, case.upstream) for answer in supervised]
    answer = ObjectiveAnswer(
        np.array([answer.cross_entropy for answer in supervised]),
        np.array([answer.dice for answer in supervised]),
        data.answer.mean(),
        case.supervised_weight * np.stack(by_modality, axis=1),
        case.gss_weight * data.answer.gradient_under(np.full((B, M), case.upstream / B)),
    )
    return ObjectiveProblem(data.logits, labels, answer)


def _labels_off_the_clip(case: ObjectiveCase, logits: Array, available: Array) -> Labels:
    """Random labels whose probability no modality has at the bound of the clip, where rounding decides."""
    B, M, C = logits.shape[:3]
    labels = np.random.default_rng(abs(case.call.seed) + 1).integers(0, C, (B, logits[0, 0, 0].size))
    for _ in range(C):
        near = [near_clip(logits[:, m], labels, "logits", available[:, m].tolist()) for m in range(M)]
        labels = np.where(np.any(near, axis=0), (labels + 1) % C, labels)
    return labels.reshape(B, *logits.shape[3:])


def label_tensor(case: ObjectiveCase, device: str = "cpu") -> Tensor:
    """The labels; not contiguous either where the logits are a slice."""
    labels = torch.from_numpy(problem(case).labels).to(device, case.label_dtype)
    return labels.repeat_interleave(2, dim=-1)[..., ::2] if case.call.layout == "sliced" else labels


def objective_options(case: ObjectiveCase, device: str = "cpu") -> dict[str, Any]:
    """Keyword arguments of `fused_gss_objective` but the backend and what it returns."""
    options = cases.loss_options(case.call, device)
    del options["reduction"]
    weights = {"supervised_weight": case.supervised_weight, "gss_weight": case.gss_weight}
    return options | weights | {"ignore_index": case.ignored}


def run(case: ObjectiveCase, backend: Backend, device: str = "cpu") -> ObjectiveResult:
    """Terms and gradient (in `[B, M, C, *spatial]`) by one backend; checks the dtypes on the way."""
    call = case.call
    tensors, logits = cases.leaves(call, problem(case).logits, device)
    terms = fused_gss_objective(
        logits,
        label_tensor(case, device),
        call.groups,
        **objective_options(case, device),
        return_terms=True,
        backend=backend,
    )
    (case.upstream * terms.total).backward()
    computed = torch.float64 if call.dtype == torch.float64 else torch.float32
    assert all(term.dtype == computed for term in terms[:4])
    assert all(tensor.grad is not None and tensor.grad.dtype == call.dtype for tensor in tensors)
    gradients = [tensor.grad.double().cpu() for tensor in tensors if tensor.grad is not None]
    gradient = torch.stack(gradients, dim=1) if len(gradients) > 1 else gradients[0]
    gradient = gradient[..., ::2] if call.layout == "sliced" else gradient
    return ObjectiveResult(*(term.detach().double().cpu().numpy() for term in terms[:4]), gradient.numpy())


def check(
    case: ObjectiveCase,
    result: ObjectiveResult,
    *,
    arithmetic: float | None = None,
    storage: float | None = None,
    gradients_added_in_storage: bool = False,
) -> None:
    """Compare with the oracles; the tolerances replace those for arithmetic in float32 or float64, and for storage.

    Autograd rounds the gradients of both losses to the logits' dtype before it adds them; a fused backward pass rounds
    once.
    """
    call, answer = case.call, problem(case).answer
    if arithmetic is None:
        arithmetic = TOLERANCE[torch.float64 if call.dtype == torch.float64 else torch.float32]
    if storage is None:
        storage = TOLERANCE[call.dtype]
    close(result.cross_entropy, answer.cross_entropy, arithmetic, scale=1.0)
    close(result.dice, answer.dice, arithmetic, scale=1.0)
    gss_scale = call.modalities * max(float(np.abs(cases.problem(call).answer.losses).max()), 1e-2)
    close(result.gss, np.asarray(answer.gss), arithmetic, scale=gss_scale)
    supervised = float((answer.cross_entropy + answer.dice).sum())
    total = case.supervised_weight * supervised + case.gss_weight * answer.gss
    close(
        result.total,
        np.asarray(total),
        arithmetic,
        scale=case.supervised_weight * max(supervised, 1.0) + case.gss_weight * gss_scale,
    )
    parts = (answer.supervised_gradient, answer.gss_gradient)
    want = parts[0] + parts[1]
    stored = np.abs(want) + (np.abs(parts[0]) + np.abs(parts[1]) if gradients_added_in_storage else 0.0)
    allowance = storage * stored + (3 if gradients_added_in_storage else 1) * SPACING[call.dtype]
    # The gradients of both losses may cancel.
    allowance += arithmetic * sum(float(np.abs(part).max()) for part in parts)
    if call.layout == "expanded":
        # Autograd adds the samples' gradients in the logits' dtype, and rounds each of them and every sum.
        want, allowance = want.sum(axis=0, keepdims=True), call.batch * allowance.sum(axis=0, keepdims=True)
    close(result.gradient, want, 0.0, allowance)


# Sample 0 has one modality, which is supervised but does not vote, sample 1 has none.
_ONE_AND_NONE = ((0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 1))


def special_cases() -> list[ObjectiveCase]:
    """The published groups, every layout, weights of 0, temperatures with and without a short cut, missing scans."""
    released, gaps = Settings(semantics="released"), ((0, 1), (1, 0), (1, 3))
    case, wide = ObjectiveCase, torch.int64
    return [
        case(Case("brats_2018")),
        case(Case("brats_2015", BRATS_5, layout="sequence"), 0.7, 1.92, wide, upstream=-0.5),
        case(Case("one_and_none", batch=3, absent=_ONE_AND_NONE, mask="given", spatial=(3, 7)), label_dtype=wide),
        case(Case("one_and_none_released", batch=3, absent=_ONE_AND_NONE, spatial=(17,), settings=released), 2.0, 30.0),
        case(Case("temperature_3.7", absent=_ONE_AND_NONE, batch=3, spatial=(13,), settings=Settings(3.7)), 1.0, 9.0),
        case(Case("bfloat16", BRATS_5, absent=gaps, layout="sequence", dtype=torch.bfloat16), gss_weight=4.0),
        case(Case("float16", spatial=(7, 3), layout="channels_last_3d", dtype=torch.float16), label_dtype=wide),
        case(Case("sliced", ((0,), (1, 2), (2,)), 3, spatial=(3, 5), layout="sliced", mask="none"), 0.3, 2.0),
        case(Case("expanded", spatial=(3, 7), layout="expanded", mask="given"), label_dtype=wide),
        case(Case("permuted", ((1,), (0,)), 2, spatial=(3, 2, 5), layout="permuted"), label_dtype=wide),
        case(Case("gss_alone", spatial=(11,), mask="given"), supervised_weight=0.0),
        case(Case("supervised_alone", spatial=(11,), absent=gaps), gss_weight=0.0),
        case(Case("one_voxel", ((0, 1), (0, 1)), 2, 1, (1, 1, 1), mask="none", settings=Settings(1.0))),
        case(Case("ignored", batch=3, absent=_ONE_AND_NONE, spatial=(3, 7)), 0.7, 1.9, ignored=255),
        case(Case("ignored_category", BRATS_5, spatial=(13,), settings=Settings(3.7)), label_dtype=wide, ignored=2),
        case(Case("ignored_float16", spatial=(13,), dtype=torch.float16), label_dtype=torch.int16, ignored=-1),
        case(Case("many_blocks", batch=1, spatial=(11, 10, 11), seed=3), label_dtype=wide),
    ]


def drawn_cases() -> list[ObjectiveCase]:
    """Every number of modalities and of categories at least twice, with random leaders and other random options."""
    return [_drawn(number) for number in range(16)]


def _drawn(number: int) -> ObjectiveCase:
    rng = random.Random(number)
    M, C, B = 2 + number % 5, 2 + number % 7, 1 + number % 3
    settings = Settings(
        temperature=(8.0, 3.7, 1.0, 16.0, 0.7)[number % 5],
        leader_threshold=rng.choice((0.75, 0.4)),
        member_threshold=rng.choice((0.85, 0.3)),
        semantics=("paper", "released")[number // 2 % 2],
        divergence=rng.choice(("kl", "cross_entropy")),
        class_weighting=rng.random() < 0.7,
        clamp=rng.choice((0.005, 0.05)),
    )
    call = Case(
        f"drawn_{number}_{M}x{C}",
        random_leaders(rng, M, C),
        M,
        B,
        rng.choice(((13,), (3, 5), (2, 3, 3))),
        mask=rng.choice(("drawn", "given", "none")),
        absent=random_absent(rng, B, M) if number % 2 else None,
        settings=settings,
        layout=rng.choice(("stacked", "sequence", "sliced")),
        dtype=(torch.float32, torch.float32, torch.bfloat16, torch.float64)[number % 4],
        seed=number,
    )
    weights = rng.choice(((1.0, 1.0), (0.7, 1.92), (0.1, 30.0)))
    return ObjectiveCase(call, *weights, label_dtype=rng.choice((torch.uint8, torch.int64)))


TABLE = {case.name: case for case in special_cases() + drawn_cases()}
