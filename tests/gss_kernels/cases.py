"""Cases that every backend is run on, with what the oracle makes of them."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gss_kernels import CategoryGroups, fused_gss_loss, gss_soft_targets
from gss_kernels.settings import Backend
from tests.gss_kernels.oracle import Answer, Array, BoolArray, Settings, drawn_keep, gss, near_threshold
from tests.gss_kernels.pairwise import covering_rows

BRATS_4 = ((0,), (1,), (0, 3), (1,))
BRATS_5 = ((0,), (1,), (0, 3), (1,), (1,))
Layout = Literal["stacked", "sequence", "permuted", "channels_last_3d", "sliced", "expanded"]
Mask = Literal["drawn", "given", "none"]

# Relative to the largest entry: what half-precision storage of a gradient costs on top of float32 arithmetic.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
# Gradients of means over voxels reach float16's denormal numbers, spaced by 2**-24.
SPACING = {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 0.0, torch.float16: 2.0**-24}
_FORMATS = {3: torch.contiguous_format, 4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Case:
    """One call of the loss."""

    name: str
    leaders: tuple[tuple[int, ...], ...] = BRATS_4
    modalities: int = 4
    batch: int = 2
    spatial: tuple[int, ...] = (3, 5, 7)
    mask: Mask = "drawn"
    mask_ratio: float = 0.2
    absent: tuple[tuple[int, int], ...] | None = None
    settings: Settings = field(default_factory=Settings)
    reduction: Literal["mean", "none"] = "mean"
    layout: Layout = "stacked"
    dtype: torch.dtype = torch.float32
    seed: int = 0

    @property
    def groups(self) -> CategoryGroups:
        return CategoryGroups(self.leaders)


@dataclass(frozen=True)
class Problem:
    """A case's arrays; the logits are exact in the case's dtype, and NaN where absent."""

    logits: Array
    keep: BoolArray | None
    available: BoolArray | None
    upstream: Array
    answer: Answer
    moved: int


@dataclass(frozen=True)
class Result:
    """What a backend returned."""

    loss: Array
    gradient: Array
    target: Array


def random_logits(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Logits `[B, M, C, *spatial]` that take every route of the vote: often agreeing, often confident."""
    shared = 4 * rng.standard_normal((shape[0], 1, *shape[2:]))
    confidence = rng.uniform(0.2, 2.5, (*shape[:2], 1, *shape[3:]))
    return confidence * (shared + 2 * rng.standard_normal(shape))


def settle(logits: Array, case: Case, available: BoolArray | None) -> tuple[Array, int]:
    """Move voxels off the thresholds, where rounding decides; also returns how many that took."""
    total = 0
    rows = logits.reshape(*logits.shape[:3], -1).copy()
    near = near_threshold(rows, case.leaders, case.settings, available)
    while near.any():
        total += int(near.sum())
        for b, v in np.argwhere(near):
            rows[b, :, :, v] = _rounded(rows[b, :, :, v] * 0.9, case.dtype)
        near = near_threshold(rows, case.leaders, case.settings, available)
    return rows.reshape(logits.shape), total


def _rounded(values: Array, dtype: torch.dtype) -> Array:
    return torch.from_numpy(values).to(dtype).double().numpy()


@functools.cache
def problem(case: Case) -> Problem:
    """The case's arrays and the oracle's answer; the same on every call."""
    rng = np.random.default_rng(abs(case.seed))
    B, M, C = case.batch, case.modalities, len(case.leaders)
    available = None
    if case.absent is not None:
        available = np.ones((B, M), bool)
        for b, m in case.absent:
            available[b, m] = False
    logits = _rounded(random_logits(rng, (B, M, C, *case.spatial)), case.dtype)
    if case.layout == "expanded":
        logits[:] = logits[:1]
    logits, moved = settle(logits, case, available)
    keep = rng.random((B, M, *case.spatial)) > 0.3 if case.mask == "given" else None
    oracle_keep = keep
    if case.mask == "drawn":
        oracle_keep = drawn_keep(case.seed, case.mask_ratio, B, M, case.spatial)
    answer = gss(logits, case.leaders, case.settings, oracle_keep, available)
    if available is not None:
        logits[~available] = np.nan
    upstream = np.full((B, M), 1 / B) if case.reduction == "mean" else rng.standard_normal((B, M))
    return Problem(logits, keep, available, upstream, answer, moved)


def leaves(case: Case, logits: Array, device: str = "cpu") -> tuple[list[Tensor], Tensor | list[Tensor]]:
    """Tensors that take the gradient, and the logits made of them in the case's layout."""
    stacked = torch.from_numpy(logits).to(device, case.dtype)
    tensors = list(stacked.unbind(1)) if case.layout in ("sequence", "channels_last_3d") else [stacked]
    if case.layout == "channels_last_3d":
        tensors = [tensor.contiguous(memory_format=_FORMATS[tensor.dim()]) for tensor in tensors]
    elif case.layout == "permuted":
        tensors = [stacked.movedim(2, -1).contiguous().movedim(-1, 2)]
    elif case.layout == "sliced":
        wide = stacked.repeat_interleave(2, dim=-1)
        tensors = [wide]
    elif case.layout == "expanded":
        tensors = [stacked[:1].clone()]
    tensors = [tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_() for tensor in tensors]
    if case.layout == "sliced":
        return tensors, tensors[0][..., ::2]
    if case.layout == "expanded":
        return tensors, tensors[0].expand(stacked.shape)
    return tensors, tensors if case.layout in ("sequence", "channels_last_3d") else tensors[0]


def loss_options(case: Case, device: str = "cpu") -> dict[str, Any]:
    """Keyword arguments of `fused_gss_loss` but the backend."""
    data = problem(case)
    options: dict[str, Any] = dataclasses.asdict(case.settings) | {"reduction": case.reduction}
    if data.available is not None:
        options["available"] = torch.from_numpy(data.available).to(device)
    if data.keep is not None:
        options["voxel_mask"] = torch.from_numpy(data.keep).to(device)
    elif case.mask == "drawn":
        options |= {"seed": case.seed, "mask_ratio": case.mask_ratio}
    else:
        options["mask_ratio"] = 0.0
    return options


def target_options(case: Case, device: str = "cpu") -> dict[str, Any]:
    """Keyword arguments of `gss_soft_targets` but the backend."""
    names = ("temperature", "leader_threshold", "member_threshold", "leader_blend", "semantics", "available")
    return {name: value for name, value in loss_options(case, device).items() if name in names}


def run(case: Case, backend: Backend, device: str = "cpu") -> Result:
    """Loss, gradient (in `[B, M, C, *spatial]`) and target by one backend; checks the dtypes on the way."""
    data = problem(case)
    tensors, logits = leaves(case, data.logits, device)
    loss = fused_gss_loss(logits, case.groups, **loss_options(case, device), backend=backend)
    upstream = torch.from_numpy(data.upstream).to(loss)
    loss.backward(torch.ones_like(loss) if case.reduction == "mean" else upstream)
    target = gss_soft_targets(logits, case.groups, **target_options(case, device), backend=backend)
    wide = torch.float64 if case.dtype == torch.float64 else torch.float32
    assert (loss.dtype, target.dtype) == (wide, wide)
    assert all(tensor.grad is not None and tensor.grad.dtype == case.dtype for tensor in tensors)
    gradients = [tensor.grad.double().cpu() for tensor in tensors if tensor.grad is not None]
    stacked = torch.stack(gradients, dim=1) if len(gradients) > 1 else gradients[0]
    stacked = stacked[..., ::2] if case.layout == "sliced" else stacked
    return Result(loss.detach().double().cpu().numpy(), stacked.numpy(), target.double().cpu().numpy())


def check(case: Case, result: Result, *, arithmetic: float | None = None, storage: float | None = None) -> None:
    """Compare with the oracle; the tolerances replace those for arithmetic in float32 or float64, and for storage."""
    data = problem(case)
    if arithmetic is None:
        arithmetic = TOLERANCE[torch.float64 if case.dtype == torch.float64 else torch.float32]
    if storage is None:
        storage = TOLERANCE[case.dtype]
    losses = np.asarray(data.answer.losses if case.reduction == "none" else data.answer.mean())
    gradient = data.answer.gradient_under(data.upstream)
    allowance = storage * np.abs(gradient) + SPACING[case.dtype]
    if case.layout == "expanded":
        # Autograd adds the samples' gradients in the logits' dtype, and rounds each of them and every sum.
        gradient, allowance = gradient.sum(axis=0, keepdims=True), case.batch * allowance.sum(axis=0, keepdims=True)
    # A divergence of 0 is a difference of logarithms; each modality's is as far from it as these are rounded.
    logarithms = 0.03 * case.modalities * math.log(len(case.leaders))
    close(result.loss, losses, arithmetic, scale=max(float(np.abs(data.answer.losses).max()), logarithms))
    close(result.target, data.answer.target, arithmetic)
    # A gradient that is a difference of equal numbers, and 0, is as far from it as these numbers are rounded.
    step = 0.1 * float(np.abs(data.upstream).max()) / (math.prod(case.spatial) * case.settings.temperature)
    close(result.gradient, gradient, arithmetic, allowance, scale=max(float(np.abs(gradient).max()), step))


def close(
    got: Array, want: Array, tolerance: float, allowance: Array | float = 0.0, scale: float | None = None
) -> None:
    """Agreement within the sum of `tolerance` of the largest entry, or of `scale`, and of an allowance."""
    assert got.shape == want.shape
    largest = float(np.abs(want).max(initial=0)) if scale is None else scale
    distance = np.abs(got - want)
    excess = distance - (tolerance * largest + allowance)
    assert excess.max() <= 0, f"off by {distance.max():.3g}, {excess.max():.3g} too much; largest entry {largest:.3g}"


def special_cases() -> list[Case]:
    """The published groups, leader sets of every size, sizes about a kernel's block, scans missing of some samples."""
    many = ((0, 1, 2, 3, 4, 5), (0,), (5,), (1, 2), (3, 4, 5), (2,), (0, 5), (4,))
    released = Settings(semantics="released")
    gaps = ((0, 1), (1, 0), (1, 3))
    few = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3))
    return [
        Case("brats_2018"),
        Case("brats_2015", BRATS_5, layout="sequence"),
        Case("all_lead", ((0, 1), (0, 1)), 2, mask="none", settings=released),
        Case("leader_sets", many, 6, 1, (5, 5), reduction="none"),
        Case("released", settings=released, reduction="none", seed=1),
        Case("released_entropy", BRATS_5, settings=Settings(semantics="released", divergence="cross_entropy")),
        Case("temperature_3.7", settings=Settings(temperature=3.7), seed=3),
        Case("thresholds", settings=Settings(leader_threshold=0.4, member_threshold=0.3, leader_blend=0.8), seed=4),
        Case("available_few", absent=few, mask="given", layout="sequence", batch=3),
        Case("available_channels_last", absent=gaps, layout="channels_last_3d"),
        Case("available_bfloat16", BRATS_5, dtype=torch.bfloat16, layout="sequence", reduction="none", absent=gaps),
        Case("one_voxel", batch=1, spatial=(1, 1, 1), mask="none"),
        Case("one_voxel_sequence", BRATS_5, batch=3, spatial=(1,), layout="sequence"),
        Case("one_block", batch=1, spatial=(4, 8, 8), mask="none"),
        Case("two_blocks", batch=2, spatial=(257,), reduction="none"),
        Case("many_blocks", batch=1, spatial=(11, 10, 11), seed=-6),
        Case("many_blocks_sequence", BRATS_5, spatial=(19, 31), layout="sequence", absent=((1, 2),)),
        Case("many_blocks_channels_last", ((1,), (0,)), 2, 1, (7, 13, 15), layout="channels_last_3d", seed=2**63),
    ]


OPTIONS: dict[str, tuple[Any, ...]] = {
    "modalities": tuple(range(2, 7)),
    "categories": tuple(range(2, 9)),
    "semantics": ("paper", "released"),
    "divergence": ("kl", "cross_entropy"),
    "mask": ("drawn", "given", "none"),
    "available": (False, True),
    "layout": ("stacked", "sequence", "permuted", "channels_last_3d", "sliced", "expanded"),
    "dtype": (torch.float32, torch.bfloat16, torch.float16),
    "temperature": ("one", "power of two", "other"),
    "batch": (1, 2, 3),
    "class_weighting": (True, False),
    "reduction": ("mean", "none"),
}
_TEMPERATURES = {"one": (1.0,), "power of two": (2.0, 4.0, 8.0, 16.0), "other": (0.7, 3.7, 10.0)}
_VOLUMES = ((37,), (5, 7), (1, 13), (2, 3, 5), (3, 1, 9), (5, 5, 1))


def options_of(case: Case) -> dict[str, Any]:
    """The case as a choice from `OPTIONS`."""
    values = vars(case) | vars(case.settings)
    values |= {"categories": len(case.leaders), "available": case.absent is not None}
    kinds = [kind for kind, temperatures in _TEMPERATURES.items() if case.settings.temperature in temperatures]
    return {name: values[name] for name in OPTIONS} | {"temperature": kinds[0]}


def pairwise_cases() -> list[Case]:
    """Tiny cases that, with the special ones, let every two values of `OPTIONS` meet."""
    rows = covering_rows(OPTIONS, [options_of(case) for case in special_cases()])
    return [_case_of(row, number) for number, row in enumerate(rows)]


def _case_of(row: dict[str, Any], number: int) -> Case:
    """A case of these options; what they leave open is drawn."""
    rng = random.Random(number)
    M, B = row["modalities"], row["batch"]
    leaders = random_leaders(rng, M, row["categories"])
    absent = random_absent(rng, B, M, same=row["layout"] == "expanded") if row["available"] else None
    leader_threshold, member_threshold = rng.choice(((0.75, 0.85), (0.5, 0.4), (0.9, 0.2)))
    hyper_parameters = Settings(
        temperature=rng.choice(_TEMPERATURES[row["temperature"]]),
        leader_threshold=leader_threshold,
        member_threshold=member_threshold,
        leader_blend=rng.choice((0.3, 0.8)),
        clamp=rng.choice((0.005, 0.05)),
        **{name: row[name] for name in ("semantics", "divergence", "class_weighting")},
    )
    chosen = {name: row[name] for name in ("mask", "reduction", "layout", "dtype")}
    spatial = rng.choice([volume for volume in _VOLUMES if len(volume) == 3 or row["layout"] != "channels_last_3d"])
    name = f"pairwise_{number}_{M}x{row['categories']}"
    return Case(name, leaders, M, B, spatial, absent=absent, settings=hyper_parameters, seed=number, **chosen)


def random_leaders(rng: random.Random, modalities: int, categories: int) -> tuple[tuple[int, ...], ...]:
    """A random set of leaders, never empty, for every category."""
    sizes = [rng.randint(1, modalities) for _ in range(categories)]
    return tuple(tuple(sorted(rng.sample(range(modalities), size))) for size in sizes)


def random_absent(
    rng: random.Random, batch: int, modalities: int, *, same: bool = False
) -> tuple[tuple[int, int], ...]:
    """Absent (sample, modality), with two modalities left in the first sample; the same in all samples if asked."""
    first = rng.sample(range(modalities), rng.randint(min(1, modalities - 2), modalities - 2))
    absent = [(0, m) for m in sorted(first)]
    for b in range(1, batch):
        others = first if same else rng.sample(range(modalities), rng.randint(1, modalities - 1))
        absent += [(b, m) for m in sorted(others)]
    return tuple(absent)


TABLE = {case.name: case for case in special_cases() + pairwise_cases()}
