"""The GSS loss, and with the segmentation losses of the same logits: check the arguments, run a backend."""

from __future__ import annotations

import inspect
from typing import Any, Literal, NamedTuple, Unpack, overload

from torch import Tensor
from torch.distributed import ProcessGroup

from gss_kernels.across_processes import check_process_group
from gss_kernels.autograd import fused_loss
from gss_kernels.backends import backend_of, pick_backend
from gss_kernels.groups import CategoryGroups
from gss_kernels.gss import reference
from gss_kernels.gss.call import GSSCall, GSSResults
from gss_kernels.settings import (
    Backend,
    GSSOptions,
    GSSSettings,
    Reduction,
    VoteOptions,
    check_choice,
    check_ignore_index,
    check_settings,
    check_weight,
)
from gss_kernels.tensors import Inputs, Logits, check_available, check_labels, check_logits, check_mask

ROUTES = ("leaders agree", "leaders split", "members", "minimum")
"""The ways in which a category's target comes about, as in `GSSStatistics.routes`."""


class GSSStatistics(NamedTuple):
    """What the vote did, over the samples with at least two available modalities; without gradient.

    Attributes:
        routes: `[C, 4]`, for each category the share of the voxels by route, in the order of `ROUTES`.
        agreement: `[M]`, for each modality the share of the voxels where its most probable category is that of the
            target; over the samples that have the modality.
    """

    routes: Tensor
    agreement: Tensor


class ObjectiveTerms(NamedTuple):
    """The objective and what it is made of; all but `total` without gradient.

    Attributes:
        total: scalar.
        cross_entropy: `[M]`, of each modality.
        dice: `[M]`, of each modality.
        gss: scalar, the GSS loss.
        statistics: None unless asked for.
    """

    total: Tensor
    cross_entropy: Tensor
    dice: Tensor
    gss: Tensor
    statistics: GSSStatistics | None


class MaskOptions(GSSOptions, total=False):
    """The keyword arguments that the GSS loss and the objective share."""

    seed: int | Tensor | None
    voxel_mask: Tensor | None
    available: Tensor | None
    backend: Backend


class LossOptions(MaskOptions, total=False):
    """The keyword arguments of `fused_gss_loss` that do not change the form of what it returns."""

    reduction: Reduction


@overload
def fused_gss_loss(
    logits: Logits, groups: CategoryGroups, *, return_stats: Literal[False] = False, **options: Unpack[LossOptions]
) -> Tensor: ...


@overload
def fused_gss_loss(
    logits: Logits, groups: CategoryGroups, *, return_stats: Literal[True], **options: Unpack[LossOptions]
) -> tuple[Tensor, GSSStatistics]: ...


def fused_gss_loss(
    logits: Logits,
    groups: CategoryGroups,
    *,
    reduction: Reduction = "mean",
    return_stats: bool = False,
    **options: Unpack[MaskOptions],
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
            float64 (CPU, or any device with `backend="reference"`). Of a network that returns probabilities p, pass
            their logarithm, which is exact: `p.clamp(min=1e-30).log()`.
        groups: the leaders of every category; `BRATS_2015`, `BRATS_2018`, `BRATS_2020` or your own.
        reduction: "mean" over samples of the sum over modalities (a scalar), or "none" for `[B, M]`.
        return_stats: return `(loss, statistics)`: the routes that the vote took and how far modalities and target
            agree, from the same pass.
        options: the hyper-parameters, which are the fields of `GSSSettings` (temperature, leader_threshold,
            member_threshold, leader_blend, semantics, mask_ratio, divergence, class_weighting, clamp) with the defaults
            that stand there, and:

            - seed: of the draw of voxels that are left out, an int of 64 bits or a 0-dim int64 tensor on the logits'
              device. None draws one from the device's default generator, so that `torch.manual_seed` repeats a run. An
              int draws the same mask at every step: in a training loop leave None, or count the steps with it.
            - voxel_mask: `[B, M, *spatial]` bool, true where kept: replaces the drawn mask.
            - available: `[B, M]` bool, the scans that a sample has. Absent modalities neither vote nor learn; a sample
              with fewer than two contributes nothing.
            - backend: "triton" (GPU), "cpu", "reference" (plain PyTorch, any device) or "auto", the default: triton for
              tensors on a GPU, cpu for those on the CPU.

    Returns:
        The loss in float32 (float64 for float64 logits): a scalar, or `[B, M]`. NaN where a kept voxel of an available
        modality has a NaN logit. Gradients have the logits' dtype.

    Raises:
        TypeError: an option that there is not.
        ValueError: an argument of wrong shape, dtype, device or range; the message names it.
        RuntimeError: `backend="triton"` without Triton installed.
    """
    check_choice("reduction", reduction, Reduction)
    inputs, call, backend = _checked(logits, groups, **options)
    call = call._replace(per_sample=reduction == "none", statistics=return_stats)
    value, results = _run(inputs, call, backend)
    return (value, GSSStatistics(*GSSResults.of(results, inputs, call)[2:])) if return_stats else value


def gss_loss_reference(logits: Logits, groups: CategoryGroups, **options: Any) -> Tensor:
    """`fused_gss_loss` in plain PyTorch, readable next to the paper: see `gss_kernels/gss/reference.py`.

    Takes the arguments of `fused_gss_loss` except `backend`, on any device; slow, and differentiable by autograd.
    """
    loss: Tensor = fused_gss_loss(logits, groups, **options, backend="reference")
    return loss


def gss_soft_targets(
    logits: Logits,
    groups: CategoryGroups,
    *,
    available: Tensor | None = None,
    backend: Backend = "auto",
    **options: Unpack[VoteOptions],
) -> Tensor:
    """The target that the modalities vote, without gradient.

    Arguments, source and errors as for `fused_gss_loss`; of its options those of the vote.

    Returns:
        `[B, C, *spatial]`, float32 (float64 for float64 logits). Each voxel sums to 1 over the categories, or is 0
        where every vote underflows and in samples with fewer than two available modalities.
    """
    if unknown := set(options) - set(VoteOptions.__annotations__):
        raise TypeError(f"gss_soft_targets() got an unexpected keyword argument {min(unknown)!r}")
    inputs, call, name = _checked(logits, groups, mask_ratio=0, available=available, backend=backend, **options)
    target: Tensor = backend_of("gss", name).soft_targets(inputs, call)
    return target


class ObjectiveOptions(MaskOptions, total=False):
    """The keyword arguments of `fused_gss_objective` that do not change the form of what it returns."""

    supervised_weight: float
    gss_weight: float
    ignore_index: int | None
    process_group: ProcessGroup | None


@overload
def fused_gss_objective(
    logits: Logits,
    labels: Tensor,
    groups: CategoryGroups,
    *,
    return_terms: Literal[False] = False,
    return_stats: Literal[False] = False,
    **options: Unpack[ObjectiveOptions],
) -> Tensor: ...


@overload
def fused_gss_objective(
    logits: Logits,
    labels: Tensor,
    groups: CategoryGroups,
    *,
    return_terms: Literal[True],
    return_stats: bool = False,
    **options: Unpack[ObjectiveOptions],
) -> ObjectiveTerms: ...


@overload
def fused_gss_objective(
    logits: Logits,
    labels: Tensor,
    groups: CategoryGroups,
    *,
    return_terms: bool = False,
    return_stats: Literal[True],
    **options: Unpack[ObjectiveOptions],
) -> ObjectiveTerms: ...


def fused_gss_objective(
    logits: Logits,
    labels: Tensor,
    groups: CategoryGroups,
    *,
    supervised_weight: float = 1.0,
    gss_weight: float = 1.0,
    ignore_index: int | None = None,
    process_group: ProcessGroup | None = None,
    return_terms: bool = False,
    return_stats: bool = False,
    **options: Unpack[MaskOptions],
) -> Tensor | ObjectiveTerms:
    """Group self-support and supervision of every modality's own prediction, in one pair of passes.

    With cross-entropy and Dice of `fused_segmentation_loss` for each modality, and `fused_gss_loss`::

        total = supervised_weight * sum_m (cross_entropy_m + dice_m) + gss_weight * gss

    The logits are read once forward and once backward, and one gradient is written. A modality's segmentation loss is
    over the samples that have it.

    Args:
        logits: as for `fused_gss_loss`.
        labels: category of every voxel, `[B, *spatial]` of any integer dtype, from 0 to C - 1.
        groups: as for `fused_gss_loss`.
        supervised_weight: of the sum of the segmentation losses, 0 or more.
        gss_weight: of the GSS loss, 0 or more.
        ignore_index: voxels of this label leave the segmentation losses, as in `fused_segmentation_loss`, and stay in
            the GSS loss. None: there is no such label.
        process_group: the segmentation losses are those of the batches of all its processes together, as in
            `fused_segmentation_loss`. The GSS loss and the statistics stay those of this process's samples: as a mean
            over samples, the GSS losses of batches of one size average to that of all of them, and so do the gradients
            of the totals in `DistributedDataParallel`.
        return_terms: return all terms, not the total alone.
        return_stats: return all terms and the statistics of the vote.
        options: as for `fused_gss_loss`. The voxel mask does not touch the segmentation losses; a single available
            modality of a sample is supervised, too.

    Returns:
        The total, a scalar in float32 (float64 for float64 logits), or `ObjectiveTerms`, of which the total alone has
        a gradient.

    Raises:
        TypeError: an option that there is not.
        ValueError: an argument of wrong shape, dtype, device or value; the message names it. Labels outside 0 to
            C - 1 only on the CPU: on a GPU, where the host would have to wait for them, the total is NaN.
        RuntimeError: `backend="triton"` without Triton installed.
    """
    inputs, call, backend = _checked(logits, groups, **options)
    call = call._replace(
        supervised_weight=check_weight("supervised_weight", supervised_weight),
        gss_weight=check_weight("gss_weight", gss_weight),
        ignore_index=check_ignore_index(ignore_index),
        statistics=return_stats,
    )
    inputs = inputs._replace(labels=check_labels(labels, inputs.logits, inputs.available, call.ignore_index))
    value, results = _run(inputs, call, backend, process_group)
    if not (return_terms or return_stats):
        return value
    _, terms, *statistics = GSSResults.of(results, inputs, call)
    cross_entropy, dice = terms[:-1].view(2, -1)
    return ObjectiveTerms(value, cross_entropy, dice, terms[-1], GSSStatistics(*statistics) if return_stats else None)


def _checked(
    logits: Logits,
    groups: CategoryGroups,
    *,
    seed: int | Tensor | None = None,
    voxel_mask: Tensor | None = None,
    available: Tensor | None = None,
    backend: Backend = "auto",
    **options: Unpack[GSSOptions],
) -> tuple[Inputs, GSSCall, Backend]:
    checked = check_logits(logits, groups)
    name = pick_backend(backend, checked.device, checked.dtype, argument="logits")
    settings = check_settings(**options)
    present = check_available(available, checked.shape[:2], checked.device)
    inputs = Inputs(checked, None, present, *check_mask(checked, settings.mask_ratio, seed, voxel_mask))
    return inputs, GSSCall(settings, groups.leaders), name


def _run(
    inputs: Inputs, call: GSSCall, backend: Backend, process_group: ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    """The value, and the buffer of the other results."""
    check_process_group(process_group, backend)
    if backend == "reference":
        return reference.loss(inputs, call)
    return fused_loss(inputs, call, "gss", backend, process_group)


for _function in (fused_gss_loss, fused_gss_objective):
    # What `help` and notebooks show: the hyper-parameters with their defaults, and not `**options` alone.
    _own = inspect.signature(_function)
    _settings = inspect.signature(GSSSettings).parameters.values()
    *_named, _options = _own.parameters.values()
    _shown = [own.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=inspect.Parameter.empty) for own in _settings]
    _function.__signature__ = _own.replace(parameters=[*_named, *_shown, _options])  # type: ignore[union-attr]
