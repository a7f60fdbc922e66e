"""What the definition of the loss implies, whatever the numbers: invariances, sums, linearity."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor

from gss_kernels import CategoryGroups, fused_gss_loss, gss_soft_targets
from gss_kernels.settings import Backend
from tests.gss_kernels.cases import random_logits

Index = slice | list[int] | Tensor
Leaders = tuple[tuple[int, ...], ...]

every_backend = pytest.mark.parametrize("backend", ["cpu", "reference"])
twenty_problems = settings(
    max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@dataclass(frozen=True)
class Problem:
    """Float64 logits `[B, M, C, *spatial]` and all that goes with them."""

    logits: Tensor
    leaders: Leaders
    keep: Tensor
    available: Tensor | None
    vote: dict[str, Any]
    distillation: dict[str, Any]
    upstream: Tensor
    generator: torch.Generator

    def select(
        self, samples: Index = slice(None), modalities: Index = slice(None), leaders: Leaders | None = None
    ) -> Problem:
        """Some samples and modalities; the leaders' numbers are those given."""
        return dataclasses.replace(
            self,
            logits=self.logits[samples][:, modalities],
            leaders=self.leaders if leaders is None else leaders,
            keep=self.keep[samples][:, modalities],
            available=None if self.available is None else self.available[samples][:, modalities],
            upstream=self.upstream[samples][:, modalities],
        )

    def permutation(self, length: int) -> Tensor:
        return torch.randperm(length, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=self.logits.dtype)


@dataclass(frozen=True)
class Answer:
    """Losses `[B, M]`, the gradient of `(upstream * losses).sum()`, and the target."""

    losses: Tensor
    gradient: Tensor
    target: Tensor


@st.composite
def problems(draw: st.DrawFn, *, complete: bool = False) -> Problem:
    M, C, B = draw(st.integers(2, 6)), draw(st.integers(2, 8)), draw(st.integers(1, 3))
    spatial = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5]), min_size=1, max_size=3)))
    leader_set = st.sets(st.integers(0, M - 1), min_size=1).map(lambda leaders: tuple(sorted(leaders)))
    vote = {
        "temperature": draw(st.sampled_from([8.0, 3.7, 1.0])),
        "leader_threshold": draw(st.sampled_from([0.75, 0.4])),
        "member_threshold": draw(st.sampled_from([0.85, 0.4])),
        "leader_blend": draw(st.sampled_from([0.3, 1.0])),
        "semantics": draw(st.sampled_from(["paper", "released"])),
    }
    distillation = {
        "divergence": draw(st.sampled_from(["kl", "cross_entropy"])),
        "class_weighting": draw(st.booleans()),
        "clamp": draw(st.sampled_from([0.005, 0.1])),
    }
    seed = draw(st.integers(0, 2**32 - 1))
    generator = torch.Generator().manual_seed(seed)
    rand = torch.rand((2, B, M, *spatial), generator=generator)
    return Problem(
        torch.from_numpy(random_logits(np.random.default_rng(seed), (B, M, C, *spatial))),
        tuple(draw(leader_set) for _ in range(C)),
        rand[0] > 0.3,
        None if complete or draw(st.booleans()) else rand[1].flatten(2)[..., 0] > 0.3,
        vote,
        distillation,
        torch.randn(B, M, generator=generator, dtype=torch.float64),
        generator,
    )


def solve(problem: Problem, backend: Backend, logits: Any = None) -> Answer:
    """The answer for the problem's logits, or for others that may come as a sequence."""
    logits = problem.logits if logits is None else logits
    groups = CategoryGroups(problem.leaders)
    stacked = isinstance(logits, Tensor)
    leaves = [
        tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        for tensor in ([logits] if stacked else logits)
    ]
    inputs = leaves[0] if stacked else leaves
    losses = fused_gss_loss(
        inputs,
        groups,
        **problem.vote,
        **problem.distillation,
        voxel_mask=problem.keep,
        available=problem.available,
        reduction="none",
        backend=backend,
    )
    gradients = torch.autograd.grad(losses, leaves, problem.upstream.to(losses.dtype))
    target = gss_soft_targets(inputs, groups, **problem.vote, available=problem.available, backend=backend)
    return Answer(losses.detach(), gradients[0] if stacked else torch.stack(gradients, dim=1), target)


def assert_same(got: Answer, want: Answer) -> None:
    """Equal but for rounding in float64."""
    torch.testing.assert_close(vars(got), vars(want), rtol=1e-9, atol=1e-13)


@every_backend
@twenty_problems
@given(problem=problems())
def test_constant_added_to_all_categories_changes_nothing(problem: Problem, backend: Backend) -> None:
    B, M, _, *spatial = problem.logits.shape
    moved = problem.logits + 10 * problem.normal(B, M, 1, *spatial)
    assert_same(solve(problem, backend, moved), solve(problem, backend))


@every_backend
@twenty_problems
@given(problem=problems())
def test_voxels_have_no_order(problem: Problem, backend: Backend) -> None:
    order = problem.permutation(problem.logits[0, 0, 0].numel())
    want = solve(problem, backend)
    flat = dataclasses.replace(
        problem, logits=problem.logits.flatten(3)[..., order], keep=problem.keep.flatten(2)[..., order]
    )
    expected = Answer(want.losses, want.gradient.flatten(3)[..., order], want.target.flatten(2)[..., order])
    assert_same(solve(flat, backend), expected)


@every_backend
@twenty_problems
@given(problem=problems())
def test_samples_have_no_order(problem: Problem, backend: Backend) -> None:
    order = problem.permutation(len(problem.logits))
    want = solve(problem, backend)
    expected = Answer(want.losses[order], want.gradient[order], want.target[order])
    assert_same(solve(problem.select(samples=order), backend), expected)


@every_backend
@twenty_problems
@given(problem=problems())
def test_modalities_have_no_order(problem: Problem, backend: Backend) -> None:
    order = problem.permutation(problem.logits.shape[1])
    place = order.argsort().tolist()
    leaders = tuple(tuple(place[m] for m in leading) for leading in problem.leaders)
    want = solve(problem, backend)
    got = solve(problem.select(modalities=order, leaders=leaders), backend)
    assert_same(got, Answer(want.losses[:, order], want.gradient[:, order], want.target))


@every_backend
@twenty_problems
@given(problem=problems())
def test_categories_have_no_order(problem: Problem, backend: Backend) -> None:
    order = problem.permutation(problem.logits.shape[2])
    want = solve(problem, backend)
    permuted = dataclasses.replace(
        problem,
        logits=problem.logits[:, :, order],
        leaders=tuple(problem.leaders[c] for c in order.tolist()),
    )
    assert_same(solve(permuted, backend), Answer(want.losses, want.gradient[:, :, order], want.target[:, order]))


@every_backend
@twenty_problems
@given(problem=problems())
def test_sample_does_not_depend_on_its_batch(problem: Problem, backend: Backend) -> None:
    want = solve(problem, backend)
    for b in range(len(problem.logits)):
        expected = Answer(*(value[b : b + 1] for value in vars(want).values()))
        assert_same(solve(problem.select(samples=[b]), backend), expected)


@every_backend
@twenty_problems
@given(problem=problems())
def test_volume_next_to_itself_has_the_same_loss(problem: Problem, backend: Backend) -> None:
    want = solve(problem, backend)
    twice = dataclasses.replace(
        problem, logits=torch.cat([problem.logits] * 2, dim=-1), keep=torch.cat([problem.keep] * 2, dim=-1)
    )
    expected = Answer(want.losses, torch.cat([want.gradient / 2] * 2, dim=-1), torch.cat([want.target] * 2, dim=-1))
    assert_same(solve(twice, backend), expected)


@every_backend
@twenty_problems
@given(problem=problems(complete=True), data=st.data())
def test_absent_modality_is_as_if_it_were_not_there(problem: Problem, backend: Backend, data: st.DataObject) -> None:
    """In every sample the same one; no category may be left without a leader."""
    M = problem.logits.shape[1]
    absent = data.draw(st.integers(0, M - 1))
    others = [m for m in range(M) if m != absent]
    leaders = tuple(leading if set(leading) != {absent} else (others[0],) for leading in problem.leaders)
    available = torch.ones(problem.keep.shape[:2], dtype=torch.bool)
    available[:, absent] = False
    with_gap = dataclasses.replace(problem, leaders=leaders, available=available)
    got = solve(with_gap, backend)
    assert not got.losses[:, absent].any()
    assert not got.gradient[:, absent].any()
    if M == 2:
        assert not got.losses.any()
        return
    renumbered = tuple(tuple(others.index(m) for m in leading if m != absent) for leading in leaders)
    dropped = problem.select(modalities=others, leaders=renumbered)
    assert_same(solve(dropped, backend), Answer(got.losses[:, others], got.gradient[:, others], got.target))


@every_backend
@twenty_problems
@given(problem=problems(complete=True))
def test_identical_modalities_have_nothing_to_learn(problem: Problem, backend: Backend) -> None:
    """Every route of the paper's vote then gives their common probabilities; class weights would still pull."""
    options = {"divergence": "kl", "class_weighting": False, "clamp": 1e-9}
    alike = dataclasses.replace(
        problem,
        logits=problem.logits[:, :1].clamp(-8, 8).expand_as(problem.logits),
        vote=problem.vote | {"semantics": "paper"},
        distillation=options,
    )
    answer = solve(alike, backend)
    probabilities = (alike.logits[:, 0] / problem.vote["temperature"]).softmax(dim=1)
    torch.testing.assert_close(answer.target, probabilities, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(answer.losses, torch.zeros_like(answer.losses), rtol=0, atol=1e-13)
    torch.testing.assert_close(answer.gradient, torch.zeros_like(answer.gradient), rtol=0, atol=1e-13)
    weighted = dataclasses.replace(alike, distillation=options | {"class_weighting": True})
    losses = solve(weighted, backend).losses
    torch.testing.assert_close(losses, torch.zeros_like(losses), rtol=0, atol=1e-13)


@every_backend
@twenty_problems
@given(problem=problems(), scale=st.sampled_from([1.0, 1e4]))
def test_target_is_a_distribution_or_zero(problem: Problem, backend: Backend, scale: float) -> None:
    target = solve(problem, backend, scale * problem.logits).target
    assert (target >= 0).all()
    total = target.sum(dim=1)
    torch.testing.assert_close(total, total.ne(0).to(total.dtype), rtol=0, atol=1e-12)
    if problem.available is not None:
        alone = problem.available.sum(dim=1) < 2
        assert not target[alone].any()
    if scale == 1.0 and problem.vote["semantics"] == "paper" and problem.available is None:
        assert total.all()


@every_backend
@twenty_problems
@given(problem=problems())
def test_gradient_sums_to_zero_over_categories(problem: Problem, backend: Backend) -> None:
    """As adding a constant to all of them changes nothing."""
    total = solve(problem, backend).gradient.sum(dim=2)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-13)


@every_backend
@twenty_problems
@given(problem=problems())
def test_gradient_is_linear_in_the_upstream_one(problem: Problem, backend: Backend) -> None:
    """And every loss reaches the logits of its own modality and sample alone."""
    B, M = problem.upstream.shape
    other = problem.normal(B, M)
    one, two, both = (
        solve(dataclasses.replace(problem, upstream=upstream), backend).gradient
        for upstream in (problem.upstream, other, 2 * problem.upstream - 3 * other)
    )
    torch.testing.assert_close(both, 2 * one - 3 * two, rtol=1e-9, atol=1e-13)
    b, m = (int(problem.permutation(length)[0]) for length in (B, M))
    single = torch.zeros(B, M, dtype=torch.float64)
    single[b, m] = problem.upstream[b, m]
    gradient = solve(dataclasses.replace(problem, upstream=single), backend).gradient
    torch.testing.assert_close(gradient[b, m], one[b, m], rtol=1e-9, atol=1e-13)
    gradient[b, m] = 0
    assert not gradient.any()


@every_backend
@twenty_problems
@given(problem=problems())
def test_layout_does_not_matter(problem: Problem, backend: Backend) -> None:
    logits = problem.logits
    channels_last = [tensor.movedim(1, -1).contiguous().movedim(-1, 1) for tensor in logits.unbind(1)]
    want = solve(problem, backend)
    for layout in (list(logits.unbind(1)), channels_last, torch.stack(channels_last, dim=-1).movedim(-1, 1)):
        assert_same(solve(problem, backend, layout), want)


@every_backend
@twenty_problems
@given(problem=problems())
def test_what_is_masked_does_not_matter(problem: Problem, backend: Backend) -> None:
    """Where every modality masks a voxel, only its place in the mean is left."""
    masked = dataclasses.replace(problem, keep=problem.keep[:, :1].expand_as(problem.keep))
    elsewhere = torch.where(masked.keep[:, :, None], problem.logits, 5 * problem.normal(*problem.logits.shape))
    one, other = solve(masked, backend), solve(masked, backend, elsewhere)
    assert_same(dataclasses.replace(other, target=one.target), one)
    assert not one.gradient[~masked.keep[:, :, None].expand_as(one.gradient)].any()
