"""Calls of the supervised loss that every backend is run on, with what the oracle makes of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gss_kernels import fused_segmentation_loss
from gss_kernels.settings import Backend, InputKind
from tests.gss_kernels.cases import SPACING, TOLERANCE
from tests.gss_kernels.segmentation_oracle import Array, Labels, SegmentationAnswer, near_clip, segmentation

Layout = Literal["contiguous", "channels_last", "permuted", "sliced", "expanded"]
_FORMATS = {3: torch.contiguous_format, 4: torch.channels_last, 5: torch.channels_last_3d}
_NO_CATEGORY = dict.fromkeys((torch.int8, torch.int16, torch.int32, torch.int64), -7) | {torch.uint8: 254}


@dataclass(frozen=True)
class SegmentationCase:
    """One call; `upstream` are the factors of both terms in what is differentiated, `ignored` is `ignore_index`."""

    name: str
    input_kind: InputKind = "logits"
    categories: int = 4
    batch: int = 2
    spatial: tuple[int, ...] = (3, 5, 7)
    absent: tuple[int, ...] | None = None
    layout: Layout = "contiguous"
    dtype: torch.dtype = torch.float32
    label_dtype: torch.dtype = torch.uint8
    upstream: tuple[float, float] = (1.0, 1.0)
    seed: int = 0
    ignored: int | None = None
    share_ignored: float = 0.3


@dataclass(frozen=True)
class SegmentationProblem:
    """A case's arrays, exact in its dtype; NaN where ignored or not available, where labels are no category."""

    prediction: Array
    labels: Labels
    available: list[bool] | None
    answer: SegmentationAnswer


@dataclass(frozen=True)
class SegmentationResult:
    """What a backend returned."""

    cross_entropy: Array
    dice: Array
    gradient: Array


def random_prediction(rng: np.random.Generator, shape: tuple[int, ...], input_kind: str) -> Array:
    """Often right, often sure, often clipped; probabilities also exactly 0 and 1, above 1, and not normalised."""
    logits: Array = rng.uniform(0.2, 4, (shape[0], 1, *shape[2:])) * rng.standard_normal(shape)
    if input_kind == "logits":
        return logits
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Array = powers / powers.sum(axis=1, keepdims=True)
    odd = rng.random((shape[0], 1, *shape[2:]))
    probabilities = np.where(odd < 0.1, probabilities == probabilities.max(axis=1, keepdims=True), probabilities)
    return np.where(odd > 0.9, 1.5 * probabilities, probabilities)


@functools.cache
def problem(case: SegmentationCase) -> SegmentationProblem:
    """The case's arrays and the oracle's answer; the same on every call."""
    rng = np.random.default_rng(case.seed)
    shape = (case.batch, case.categories, *case.spatial)
    prediction = _rounded(random_prediction(rng, shape, case.input_kind), case.dtype)
    if case.layout == "expanded":
        prediction[:] = prediction[:1]
    labels = rng.integers(0, case.categories, (case.batch, *case.spatial))
    available = None if case.absent is None else [b not in case.absent for b in range(case.batch)]
    prediction = _settle(prediction, labels, case, available)
    if case.ignored is not None:
        labels[rng.random(labels.shape) < case.share_ignored] = case.ignored
    answer = segmentation(prediction, labels, case.input_kind, available, case.ignored)
    prediction.swapaxes(0, 1)[:, labels == case.ignored] = np.nan
    for b in case.absent or ():
        prediction[b] = np.nan
        labels[b] = _NO_CATEGORY[case.label_dtype]
    return SegmentationProblem(prediction, labels, available, answer)


def _settle(prediction: Array, labels: Labels, case: SegmentationCase, available: list[bool] | None) -> Array:
    """Move voxels off the bound of the clip, where rounding decides; in all samples, as they may share memory."""
    rows = prediction.reshape(*prediction.shape[:2], -1).copy()
    near = near_clip(rows, labels, case.input_kind, available).any(axis=0)
    while near.any():
        rows[:, :, near] = _rounded(rows[:, :, near] * 0.9, case.dtype)
        near = near_clip(rows, labels, case.input_kind, available).any(axis=0)
    return rows.reshape(prediction.shape)


def _rounded(values: Array, dtype: torch.dtype) -> Array:
    return torch.from_numpy(values).to(dtype).double().numpy()


def leaf_and_input(prediction: Array, case: SegmentationCase, device: str) -> tuple[Tensor, Tensor]:
    """The tensor that takes the gradient, and the input made of it in the case's layout."""
    tensor = torch.from_numpy(prediction).to(device, case.dtype)
    if case.layout == "channels_last":
        tensor = tensor.contiguous(memory_format=_FORMATS[tensor.dim()])
    elif case.layout == "permuted":
        tensor = tensor.permute(*reversed(range(tensor.dim()))).contiguous().permute(*reversed(range(tensor.dim())))
    elif case.layout == "sliced":
        tensor = tensor.repeat_interleave(2, dim=-1)
    elif case.layout == "expanded":
        tensor = tensor[:1]
    leaf = tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    if case.layout == "sliced":
        return leaf, leaf[..., ::2]
    return leaf, leaf.expand(prediction.shape) if case.layout == "expanded" else leaf


def label_tensor(case: SegmentationCase, device: str = "cpu") -> Tensor:
    labels = torch.from_numpy(problem(case).labels).to(device, case.label_dtype)
    return labels.repeat_interleave(2, dim=-1)[..., ::2] if case.layout == "sliced" else labels


def run(case: SegmentationCase, backend: Backend, device: str = "cpu") -> SegmentationResult:
    """Both terms and the gradient `[B, C, *spatial]` by one backend; checks the dtypes on the way."""
    data = problem(case)
    leaf, prediction = leaf_and_input(data.prediction, case, device)
    available = None if data.available is None else torch.tensor(data.available, device=device)
    options: dict[str, Any] = {"available": available, "ignore_index": case.ignored, "backend": backend}
    terms = fused_segmentation_loss(prediction, label_tensor(case, device), input_kind=case.input_kind, **options)
    computed = torch.float64 if case.dtype == torch.float64 else torch.float32
    assert all(term.shape == () and term.dtype == computed for term in terms)
    cross_entropy, dice = case.upstream
    (cross_entropy * terms.cross_entropy + dice * terms.dice).backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == case.dtype
    gradient = leaf.grad[..., ::2] if case.layout == "sliced" else leaf.grad
    return SegmentationResult(
        *(term.detach().double().cpu().numpy() for term in terms), gradient.double().cpu().numpy()
    )


def check(case: SegmentationCase, result: SegmentationResult) -> None:
    """Compare with the oracle."""
    answer = problem(case).answer
    arithmetic = TOLERANCE[torch.float64 if case.dtype == torch.float64 else torch.float32]
    np.testing.assert_allclose(result.cross_entropy, answer.cross_entropy, rtol=arithmetic, atol=arithmetic)
    np.testing.assert_allclose(result.dice, answer.dice, rtol=arithmetic, atol=arithmetic)
    want = answer.gradient_under(*case.upstream)
    # The terms' gradients may cancel; an expanded input's are added up by autograd in the input's dtype.
    largest = max(np.abs(answer.cross_entropy_gradient).max(), np.abs(answer.dice_gradient).max())
    allowance = TOLERANCE[case.dtype] * np.abs(want) + SPACING[case.dtype]
    if case.layout == "expanded":
        want, allowance = want.sum(axis=0, keepdims=True), case.batch * allowance.sum(axis=0, keepdims=True)
    excess = np.abs(result.gradient - want) - (arithmetic * largest * max(np.abs(case.upstream)) + allowance)
    assert result.gradient.shape == want.shape
    assert excess.max() <= 0, f"{case.name}: gradient off by {excess.max():.3g} too much, largest {largest:.3g}"


def table() -> list[SegmentationCase]:
    """Few and small: an interpreter of kernels has to run them too."""
    case = SegmentationCase
    return [
        case("logits"),
        case("probabilities", "probabilities"),
        case("two_categories", categories=2, spatial=(5, 3), label_dtype=torch.int64, layout="sliced"),
        case("eight_categories", "probabilities", 8, 1, (13,), upstream=(0.5, -2.0)),
        case("five_categories", categories=5, batch=3, spatial=(11,), absent=(1,), layout="permuted"),
        case("available", "probabilities", batch=3, absent=(0, 2), label_dtype=torch.int64),
        case("all_available", absent=(), layout="channels_last", upstream=(1.0, 0.0)),
        case("none_available", absent=(0, 1), spatial=(5,)),
        case("one_voxel", batch=1, spatial=(1, 1, 1)),
        case("one_voxel_each", "probabilities", 3, 3, (1,), label_dtype=torch.int64),
        case("channels_last", "probabilities", 5, layout="channels_last", upstream=(0.0, 1.0)),
        case("permuted", "probabilities", layout="permuted", label_dtype=torch.int64),
        case("sliced", "probabilities", 3, spatial=(3, 4, 5), layout="sliced"),
        case("expanded", batch=3, spatial=(5, 3), layout="expanded", label_dtype=torch.int64),
        case("bfloat16", dtype=torch.bfloat16, absent=(1,)),
        case("bfloat16_probabilities", "probabilities", dtype=torch.bfloat16, layout="channels_last"),
        case("float16", categories=3, dtype=torch.float16, label_dtype=torch.int64),
        case("float16_probabilities", "probabilities", dtype=torch.float16, layout="sliced", spatial=(9, 3)),
        case("ignored", ignored=255),
        case("ignored_probabilities", "probabilities", 3, label_dtype=torch.int16, layout="sliced", ignored=-1),
        case("ignored_category", categories=5, batch=3, absent=(1,), label_dtype=torch.int32, ignored=2),
        case("ignored_bfloat16", dtype=torch.bfloat16, label_dtype=torch.int8, ignored=-1, upstream=(0.5, -2.0)),
        case("all_ignored", ignored=255, share_ignored=1.0, spatial=(5,)),
        case("many_blocks", batch=2, spatial=(11, 10, 11), absent=(0,)),
        case("many_blocks_probabilities", "probabilities", 3, spatial=(41, 31), label_dtype=torch.int64),
    ]


TABLE = {case.name: case for case in table()}
