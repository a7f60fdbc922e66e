"""The GSS loss and the supervised loss of the same logits in one."""

from __future__ import annotations

from typing import Literal, TypedDict, Unpack, overload

from torch import Tensor
from torch.distributed import ProcessGroup

from gss_kernels.across_processes import check_process_group
from gss_kernels.backends import pick_backend
from gss_kernels.call import GroupCall, GroupResults, Supervision
from gss_kernels.group_loss import group_loss
from gss_kernels.groups import CategoryGroups
from gss_kernels.inputs import Logits, check_available, check_labels, check_logits, check_mask
from gss_kernels.results import GSSStatistics, ObjectiveTerms
from gss_kernels.settings import Backend, DistillationSettings, Divergence, Semantics, VoteSettings, check_weight


class ObjectiveOptions(TypedDict, total=False):
    """The keyword arguments of `fused_gss_objective` that do not change what it returns."""

    supervised_weight: float
    gss_weight: float
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
    process_group: ProcessGroup | None
    backend: Backend


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
    process_group: ProcessGroup | None = None,
    return_terms: bool = False,
    return_stats: bool = False,
    backend: Backend = "auto",
) -> Tensor | ObjectiveTerms:
    """Group self-support and supervision of every modality's own prediction, in one pair of passes.

    With cross-entropy and Dice of `fused_segmentation_loss` for each modality, and `fused_gss_loss`::

        total = supervised_weight * sum_m (cross_entropy_m + dice_m) + gss_weight * gss

    The logits are read once forward and once backward, and one gradient is written. A modality's supervised loss is
    over the samples that have it.

    Args:
        logits: as for `fused_gss_loss`.
        labels: category of every voxel, `[B, *spatial]` uint8 or int64, from 0 to C - 1.
        groups: as for `fused_gss_loss`.
        supervised_weight: of the sum of the supervised losses, 0 or more.
        gss_weight: of the GSS loss, 0 or more.
        temperature: this and all below as for `fused_gss_loss`.
        leader_threshold: see there.
        member_threshold: see there.
        leader_blend: see there.
        mask_ratio: see there; the mask does not touch the supervised losses.
        seed: see there.
        voxel_mask: see there.
        available: see there; a single available modality of a sample is supervised, too.
        divergence: see there.
        semantics: see there.
        class_weighting: see there.
        clamp: see there.
        process_group: the supervised losses are those of the batches of all its processes together, as in
            `fused_segmentation_loss`. The GSS loss and the statistics stay those of this process's samples: as a mean
            over samples, the GSS losses of batches of one size average to that of all of them, and so do the gradients
            of the totals in `DistributedDataParallel`.
        return_terms: return all terms, not the total alone.
        return_stats: return all terms and the statistics of the vote.
        backend: see there.

    Returns:
        The total, a scalar in float32 (float64 for float64 logits), or `ObjectiveTerms`, of which the total alone has
        a gradient.

    Raises:
        ValueError: an argument of wrong shape, dtype, device or value; the message names it. Labels outside 0 to
            C - 1 only on the CPU: on a GPU, where the host would have to wait for them, the total is NaN.
        RuntimeError: `backend="triton"` without Triton installed.
    """
    checked = check_logits(logits, groups)
    name = pick_backend(backend, checked.device, checked.dtype, argument="logits")
    check_available(available, checked)
    check_process_group(process_group, name)
    check_weight("supervised_weight", supervised_weight)
    check_weight("gss_weight", gss_weight)
    check_labels(labels, checked.num_samples, tuple(checked.spatial), checked.num_categories, checked.device, available)
    call = GroupCall(
        groups,
        VoteSettings(temperature, leader_threshold, member_threshold, leader_blend, semantics),
        DistillationSettings(divergence, class_weighting, clamp),
        check_mask(checked, mask_ratio, seed, voxel_mask),
        available,
        Supervision(labels, float(supervised_weight), float(gss_weight), process_group),
        statistics=return_stats,
    )
    results = group_loss(checked, call, name)
    return _terms(results, checked.num_modalities) if return_terms or return_stats else results.total


def _terms(results: GroupResults, num_modalities: int) -> ObjectiveTerms:
    cross_entropy, dice = results.terms[:-1].view(2, num_modalities)
    statistics = GSSStatistics(results.routes, results.agreement) if results.routes.numel() else None
    return ObjectiveTerms(results.total, cross_entropy, dice, results.terms[-1], statistics)
