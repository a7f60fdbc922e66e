"""Products of Gaussians over subsets of the modalities, and divergences between them.

The posterior of a subset of the modalities is the product of their Gaussians and of the standard normal prior (Wu and
Goodman, NeurIPS 2018), as U-HVED (Dorent et al., MICCAI 2019) has it. Constants are those of U-HVED's own code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LARGEST_LOG_VARIANCE = 50.0
EPSILON = 1e-7

_CHUNK_BYTES = {"cpu": 2**18, "default": 2**23}  # of one tensor over all subsets; on the CPU they stay in its cache


def product_of_gaussians(means: Tensor, log_variances: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The product of some modalities' Gaussians and of the standard normal prior.

    Args:
        means: `[B, M, *rest]`.
        log_variances: `[B, M, *rest]`, clipped to +-50.
        kept: `[B, M]` bool, the modalities that take part; the others add neither precision nor gradient.

    Returns:
        Mean and variance, `[B, *rest]` float32 (float64 for float64); the variance carries the published 1e-7. The
        backward pass computes everything between again.
    """
    mean, variance = checkpoint(
        _product_of_gaussians, means, log_variances, kept, use_reentrant=False, preserve_rng_state=False
    )
    return mean, variance


def _product_of_gaussians(means: Tensor, log_variances: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    mask = kept.view(*kept.shape, *[1] * (means.dim() - 2))
    precisions = torch.where(mask, _precision(log_variances), 0)
    spread = 1 / (1 + precisions.sum(1))
    mean = (torch.where(mask, at_least_float32(means), 0) * precisions).sum(1) * spread
    return mean, spread + EPSILON


def subset_divergence(means: Tensor, log_variances: Tensor, fused: Tensor, available: Tensor) -> Tensor:
    """U-HVED's Kullback-Leibler term: divergences over the subsets of the available modalities.

    With `q_S` the posterior of a subset S and p the prior, it is `sum_S KL(q_fused || q_S) / 14 + sum_S KL(q_S || p) /
    15` over the 15 non-empty subsets of four modalities, averaged over elements and samples. With n modalities
    available S runs over their subsets alone, and the divisors are `2^n - 2` (at least 1) and `2^n - 1`. Computed in
    float32 in chunks that the backward pass computes again: no tensor over all subsets is ever kept.

    Args:
        means: `[B, M, *rest]`.
        log_variances: `[B, M, *rest]`.
        fused: `[B, M]` bool, the subset of the fused prediction.
        available: `[B, M]` bool; the others change neither the value nor a gradient.

    Returns:
        A float32 scalar (float64 for float64).
    """
    subsets = _subsets(means.shape[1], means.device)
    within = ~(subsets & ~available[:, None]).any(2)
    count = within.sum(1, keepdim=True)
    divisors = torch.stack(((count - 1).clamp(min=1), count), dim=1)
    weights = within[:, None] / divisors.to(torch.promote_types(means.dtype, torch.float32))
    members = subsets.expand(len(means), -1, -1), fused[:, None]
    budget = _CHUNK_BYTES.get(means.device.type, _CHUNK_BYTES["default"])
    length = max(1, budget // (4 * members[0].shape[:2].numel()))
    chunks = zip(*(torch.split(tensor.flatten(2), length, dim=2) for tensor in (means, log_variances)), strict=True)
    sums = [
        checkpoint(_divergence_sum, *chunk, *members, weights, use_reentrant=False, preserve_rng_state=False)
        for chunk in chunks
    ]
    return torch.stack(sums).sum() / means[:, 0].numel()


def _divergence_sum(means: Tensor, log_variances: Tensor, subsets: Tensor, fused: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the divergences.

    Args:
        means: `[B, M, n]`.
        log_variances: `[B, M, n]`.
        subsets: `[B, S, M]` bool.
        fused: `[B, 1, M]` bool.
        weights: `[B, 2, S]`: of the divergences from the fused posterior, and from the prior.
    """
    with torch.autocast(means.device.type, enabled=False):
        precisions = _precision(log_variances)
        weighted_means = at_least_float32(means) * precisions
        mean, variance, log_variance = _products(precisions, weighted_means, subsets)
        fused_mean, fused_variance, fused_log_variance = _products(precisions, weighted_means, fused)
        distance = (fused_variance + (fused_mean - mean).square()) / (variance + EPSILON)
        from_fused = distance + log_variance - (1 + fused_log_variance)
        to_prior = (variance + mean.square()) / (1 + EPSILON) - (1 + log_variance)
        return (torch.bmm(weights[:, :1], from_fused) + torch.bmm(weights[:, 1:], to_prior)).sum() / 2


def _products(precisions: Tensor, weighted_means: Tensor, subsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and log-variance of the posteriors of subsets `[B, S, M]`, each `[B, S, n]`."""
    rows = subsets.to(precisions.dtype)
    spread = 1 / (1 + torch.bmm(rows, precisions))
    variance = spread + EPSILON
    return torch.bmm(rows, weighted_means) * spread, variance, variance.log()


def _precision(log_variance: Tensor) -> Tensor:
    clipped = at_least_float32(log_variance).clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)
    return 1 / (clipped.exp() + EPSILON)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is in float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _subsets(num_modalities: int, device: torch.device) -> Tensor:
    """All non-empty subsets of the modalities, `[2^M - 1, M]` bool."""
    numbers = torch.arange(1, 2**num_modalities, device=device)
    return (numbers[:, None] >> torch.arange(num_modalities, device=device) & 1).bool()
