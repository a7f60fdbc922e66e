"""Products of Gaussians and divergences against densities and PyTorch's own distributions."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from gss_train.models.layers import gaussians
from gss_train.models.layers.gaussians import product_of_gaussians, subset_divergence

SHAPE = (3, 4, 2, 5, 6, 7)
FUSED = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, True, True]])
ALL = torch.ones(3, 4, dtype=torch.bool)


def draw(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return means, torch.randn(SHAPE, generator=generator, dtype=torch.float64)


def posterior(means: Tensor, log_variances: Tensor, members: list[int]) -> Normal:
    """Product of one sample's Gaussians, `[M, *rest]`, and the prior, by completing the square."""
    precisions = [torch.ones_like(means[0]), *((-log_variances[m]).exp() for m in members)]
    centres = [torch.zeros_like(means[0]), *(means[m] for m in members)]
    precision = torch.stack(precisions).sum(0)
    weighted = torch.stack([a * b for a, b in zip(precisions, centres, strict=True)]).sum(0)
    return Normal(weighted / precision, precision.rsqrt())


def subsets_of(members: list[int]) -> list[list[int]]:
    return [list(subset) for size in range(1, len(members) + 1) for subset in combinations(members, size)]


def expected_divergence(means: Tensor, log_variances: Tensor, fused: Tensor, available: Tensor) -> Tensor:
    prior = Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))
    per_sample = []
    for mean, log_variance, chosen, present in zip(means, log_variances, fused, available, strict=True):
        subsets = subsets_of(present.nonzero().flatten().tolist())
        whole = posterior(mean, log_variance, chosen.nonzero().flatten().tolist())
        parts = [posterior(mean, log_variance, subset) for subset in subsets]
        between = sum(kl_divergence(whole, part).mean() for part in parts) / max(len(subsets) - 1, 1)
        per_sample.append(between + sum(kl_divergence(part, prior).mean() for part in parts) / len(subsets))
    return torch.stack(per_sample).mean()


def test_product_is_the_normalised_product_of_the_densities() -> None:
    means, log_variances = draw()
    log_variances = log_variances / 4  # so that the published 1e-7 beside the variances is small
    mean, variance = product_of_gaussians(means, log_variances, FUSED)
    latents = torch.linspace(-2, 2, 11, dtype=torch.float64)[:, None, None, None, None]
    for b in range(3):
        log_density = Normal(0, 1).log_prob(latents)
        for m in FUSED[b].nonzero().flatten():
            log_density = log_density + Normal(means[b, m], (log_variances[b, m] / 2).exp()).log_prob(latents)
        ratio = log_density - Normal(mean[b], variance[b].sqrt()).log_prob(latents)
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=0, atol=1e-4)


def test_modality_left_out_neither_matters_nor_gets_a_gradient_even_if_not_finite() -> None:
    means, log_variances = draw()
    expected = product_of_gaussians(means, log_variances, FUSED)
    for filler in (torch.nan, torch.inf, -torch.inf):
        leaves = [torch.where(FUSED[:, :, None, None, None, None], t, filler).requires_grad_() for t in draw()]
        actual = product_of_gaussians(leaves[0], leaves[1], FUSED)
        for have, want in zip(actual, expected, strict=True):
            assert torch.equal(have, want)
        gradients = torch.autograd.grad(sum(part.square().sum() for part in actual), leaves)
        for gradient in gradients:
            assert gradient[FUSED].ne(0).all()
            assert gradient[~FUSED].nan_to_num(1.0).eq(0).all()


def test_log_variances_are_clipped_at_fifty() -> None:
    means, log_variances = draw()
    extreme = torch.where(log_variances > 0, 1e4, -1e4).float().requires_grad_()
    centres = means.float().requires_grad_()
    mean, variance = product_of_gaussians(centres, extreme, ALL)
    clipped = product_of_gaussians(centres, extreme.clamp(-50, 50), ALL)
    assert torch.equal(mean, clipped[0])
    assert torch.equal(variance, clipped[1])
    value = mean.square().sum() + variance.sum() + subset_divergence(centres, extreme, FUSED, ALL)
    assert value.isfinite()
    to_centres, to_extreme = torch.autograd.grad(value, (centres, extreme))
    assert to_centres.isfinite().all()
    assert to_extreme.eq(0).all()


def test_half_precision_is_computed_in_float32() -> None:
    means, log_variances = (tensor.bfloat16() for tensor in draw())
    rough = product_of_gaussians(means, log_variances, FUSED)
    fine = product_of_gaussians(means.float(), log_variances.float(), FUSED)
    assert rough[0].dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(rough, fine, strict=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        divergence = subset_divergence(means, log_variances, FUSED, ALL)
    assert divergence.dtype == torch.float32
    torch.testing.assert_close(divergence, subset_divergence(means.float(), log_variances.float(), FUSED, ALL))


@pytest.mark.parametrize("some_missing", [False, True])
def test_divergence_is_the_sum_over_the_subsets_of_what_is_available(some_missing: bool) -> None:
    means, log_variances = draw()
    available = torch.tensor([[True, False, True, True], [False, True, False, False], [True] * 4]) | ~torch.tensor(
        some_missing
    )
    actual = subset_divergence(means, log_variances, FUSED, available)
    torch.testing.assert_close(actual, expected_divergence(means, log_variances, FUSED, available), rtol=1e-5, atol=0)


def test_divergence_is_the_published_sum_with_everything_available() -> None:
    """Fifteen subsets over the divisors 14 and 15, by hand for one voxel with four equal Gaussians."""
    mean, log_variance = 0.7, -0.4
    members = torch.tensor([len(subset) for subset in subsets_of([0, 1, 2, 3])], dtype=torch.float64)
    precision = 1 + members * torch.tensor(-log_variance, dtype=torch.float64).exp()
    centre = mean * (precision - 1) / precision
    whole, whole_centre = precision[-1], centre[-1]
    between = (precision / whole + precision * (whole_centre - centre).square() - 1 - (precision / whole).log()) / 2
    to_prior = (1 / precision + centre.square() - 1 + precision.log()) / 2
    shape = (1, 4, 1, 1, 1, 1)
    actual = subset_divergence(
        torch.full(shape, mean, dtype=torch.float64),
        torch.full(shape, log_variance, dtype=torch.float64),
        ALL[:1],
        ALL[:1],
    )
    assert actual.item() == pytest.approx((between.sum() / 14 + to_prior.sum() / 15).item(), rel=1e-5)


def test_divergence_in_chunks_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for size in (2**30, 4 * 3 * 15 * 100):
        monkeypatch.setitem(gaussians._CHUNK_BYTES, "cpu", size)
        leaves = [tensor.requires_grad_() for tensor in draw()]
        value = subset_divergence(leaves[0], leaves[1], FUSED, ALL)
        results.append([value, *torch.autograd.grad(value, leaves)])
    for one, many in zip(*results, strict=True):
        torch.testing.assert_close(many, one, rtol=1e-12, atol=1e-18)


def test_divergence_gradient() -> None:
    leaves = [tensor[:, :, :1, :1, :2, :2].clone().requires_grad_() for tensor in draw()]
    available = FUSED | torch.tensor([True, True, False, False])
    assert torch.autograd.gradcheck(lambda a, b: subset_divergence(a, b, FUSED, available), leaves)


def test_divergence_ignores_unavailable_modalities() -> None:
    available = FUSED.clone()
    values = []
    for filler in (0.0, 3.0):
        leaves = [
            torch.where(available[:, :, None, None, None, None], tensor, filler).requires_grad_() for tensor in draw()
        ]
        value = subset_divergence(leaves[0], leaves[1], FUSED, available)
        gradients = torch.autograd.grad(value, leaves)
        assert all(gradient[~available].eq(0).all() for gradient in gradients)
        values.append([value, *(gradient[available] for gradient in gradients)])
    assert all(torch.equal(a, b) for a, b in zip(*values, strict=True))
