"""The public functions: check the arguments, pick a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypedDict, Unpack, overload

from torch import Tensor

from gss_kernels.backends import pick_backend
from gss_kernels.call import GroupCall
from gss_kernels.cpu import cpu_soft_targets
from gss_kernels.group_loss import group_loss
from gss_kernels.groups import CategoryGroups
from gss_kernels.inputs import GroupLogits, Logits, check_available, check_logits, check_mask
from gss_kernels.reference import reference_soft_targets
from gss_kernels.results import GSSStatistics
from gss_kernels.settings import Backend, DistillationSettings, Divergence, Reduction, Semantics, VoteSettings

_SoftTargets = Callable[[GroupLogits, CategoryGroups, VoteSettings, Tensor | None], Tensor]


class LossOptions(TypedDict, total=False):
    """The keyword arguments that `fused_gss_loss` and `gss_loss_reference` share."""

    temperature: float
    leader_threshold: float
    member_threshold: float
    leader_blend: float
    mask_ratio: float
    seed: int | Tensor | None
    voxel_mask: Tensor | None
    available: Tensor | None
    divergence: Divergence
    semantics: Semantics
    class_weighting: bool
    clamp: float
    reduction: Reduction


@overload
def fused_gss_loss(
    logits: Logits,
    groups: CategoryGroups,
    *,
    return_stats: Literal[False] = False,
    backend: Backend = "auto",
    **options: Unpack[LossOptions],
) -> Tensor: ...


@overload
def fused_gss_loss(
    logits: Logits,
    groups: CategoryGroups,
    *,
    return_stats: Literal[True],
    backend: Backend = "auto",
    **options: Unpack[LossOptions],
) -> tuple[Tensor, GSSStatistics]: ...


def fused_gss_loss(
    logits: Logits,
    groups: CategoryGroups,
    *,
    temperature: float = 8.0,
    leader_threshold: float = 0.75,
    member_threshold: float = 0.85,
    leader_blend: float = 0.3,
    mask_ratio: float = 0.2,
    seed: int | Tensor | None = None,
    voxel_mask: Tensor | None = None,
    available: Tensor | None = None,
    divergence: Divergence = "kl",
    semantics: Semantics = "paper",
    class_weighting: bool = True,
    clamp: float = 0.005,
    reduction: Reduction = "mean",
    return_stats: bool = False,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, GSSStatistics]:
    """Group self-support loss: every modality is drawn towards the target that all modalities vote.

    With tempered probabilities `q = softmax(z / T)`, voted target `t`, voxel mask `k`, N voxels and category weights
    `W = 1 - sum_v k t / sum_v k`, modality m of sample b loses::

        l[b, m] = (1 / N) * sum_v sum_c W * k * t * (log t - log max(q, clamp))

    The target is a constant: gradients flow through `q` alone. Training usually weighs the loss by
    `0.3 * temperature**2 / 10` as published.

    Source: Qiu et al., "Scratch Each Other's Back: Incomplete Multi-modal Brain Tumor Segmentation via Category Aware
    Group Self-Support Learning", ICCV 2023, section 3.

    Args:
        logits: each modality's own prediction before the softmax, `[B, M, C, *spatial]` or M tensors
            `[B, C, *spatial]`, with one to three spatial axes; float32, bfloat16, float16 (computed in float32) or
            float64 (CPU, or any device with `backend="reference"`).
        groups: the leaders of every category; `BRATS_2015`, `BRATS_2018`, `BRATS_2020` or your own.
        temperature: softening T of targets and students.
        leader_threshold: sharp probability above which a leader is confident, in (0, 1).
        member_threshold: sharp probability above which a member is confident, in (0, 1).
        leader_blend: blend of maximum (0) and minimum (1) where leaders disagree, in [0, 1].
        mask_ratio: probability with which a voxel is left out, drawn per modality, in [0, 1].
        seed: seed of that draw, an int of 64 bits or a 0-dim int64 tensor on the logits' device; None draws one from
            the device's default generator, so that `torch.manual_seed` repeats a run.
        voxel_mask: `[B, M, *spatial]` bool, true where kept: replaces the drawn mask.
        available: `[B, M]` bool, the scans that a sample has. Absent modalities neither vote nor learn; a sample with
            fewer than two contributes nothing.
        divergence: "kl", or "cross_entropy" as in the public code (same gradient).
        semantics: "paper", or "released" to repeat the public code's two deviations.
        class_weighting: whether W is used; without it W = 1.
        clamp: student probability below which the loss is flat, in (0, 1).
        reduction: "mean" over samples of the sum over modalities (a scalar), or "none" for `[B, M]`.
        return_stats: return `(loss, statistics)`: the routes that the vote took and how far modalities and target
            agree, from the same pass.
        backend: "triton" (GPU), "cpu", "reference" (plain PyTorch, any device) or "auto": triton for tensors on a
            GPU, cpu for those on the CPU.

    Returns:
        The loss in float32 (float64 for float64 logits): a scalar, or `[B, M]`. NaN where a kept voxel of an available
        modality has a NaN logit. Gradients have the logits' dtype.

    Raises:
        ValueError: an argument of wrong shape, dtype, device or range; the message names it.
        RuntimeError: `backend="triton"` without Triton installed.
    """
    checked = check_logits(logits, groups)
    name = pick_backend(backend, checked.device, checked.dtype, argument="logits")
    call = GroupCall(
        groups,
        VoteSettings(temperature, leader_threshold, member_threshold, leader_blend, semantics),
        DistillationSettings(divergence, class_weighting, clamp, reduction),
        check_mask(checked, mask_ratio, seed, voxel_mask),
        check_available(available, checked),
        statistics=return_stats,
    )
    results = group_loss(checked, call, name)
    loss = results.total if reduction == "mean" else results.losses
    return (loss, GSSStatistics(results.routes, results.agreement)) if return_stats else loss


def gss_loss_reference(logits: Logits, groups: CategoryGroups, **options: Unpack[LossOptions]) -> Tensor:
    """`fused_gss_loss` in plain PyTorch, readable next to the paper: see `gss_kernels/reference/gss.py`.

    Takes the arguments of `fused_gss_loss` except `backend`, on any device; slow, and differentiable by autograd.
    """
    return fused_gss_loss(logits, groups, **options, backend="reference")


def gss_soft_targets(
    logits: Logits,
    groups: CategoryGroups,
    *,
    temperature: float = 8.0,
    leader_threshold: float = 0.75,
    member_threshold: float = 0.85,
    leader_blend: float = 0.3,
    available: Tensor | None = None,
    semantics: Semantics = "paper",
    backend: Backend = "auto",
) -> Tensor:
    """The target that the modalities vote, without gradient.

    Arguments, source and errors as for `fused_gss_loss`.

    Returns:
        `[B, C, *spatial]`, float32 (float64 for float64 logits). Each voxel sums to 1 over the categories, or is 0
        where every vote underflows and in samples with fewer than two available modalities.
    """
    vote = VoteSettings(temperature, leader_threshold, member_threshold, leader_blend, semantics)
    checked = check_logits(logits, groups)
    check_available(available, checked)
    name = pick_backend(backend, checked.device, checked.dtype, argument="logits")
    return _soft_targets(name)(checked, groups, vote, available)


def _soft_targets(backend: Backend) -> _SoftTargets:
    if backend == "triton":
        from gss_kernels.triton import triton_soft_targets  # noqa: PLC0415  (Triton is optional)

        return triton_soft_targets
    return cpu_soft_targets if backend == "cpu" else reference_soft_targets
