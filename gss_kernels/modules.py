"""The losses as modules, with their arguments fixed and checked."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from gss_kernels.groups import CategoryGroups, check_groups
from gss_kernels.gss.api import GSSStatistics, ObjectiveTerms, fused_gss_loss, fused_gss_objective
from gss_kernels.segmentation.api import fused_segmentation_loss
from gss_kernels.settings import (
    Backend,
    GSSOptions,
    InputKind,
    Reduction,
    check_choice,
    check_ignore_index,
    check_settings,
    check_weight,
)
from gss_kernels.tensors import Logits


class _Module(nn.Module):
    def extra_repr(self) -> str:
        """The arguments, for `print`."""
        arguments = {name: value for name, value in vars(self).items() if name not in vars(nn.Module())}
        return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


class GSSLoss(_Module):
    """`fused_gss_loss` as a module; see there for the arguments.

    Example:
        >>> import torch
        >>> from gss_kernels import BRATS_2018, GSSLoss
        >>> loss = GSSLoss(BRATS_2018)
        >>> logits = torch.randn(2, 4, 4, 8, 8, 8, requires_grad=True)
        >>> loss(logits, seed=0).backward()
    """

    def __init__(
        self,
        groups: CategoryGroups,
        *,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        **options: Unpack[GSSOptions],
    ) -> None:
        super().__init__()
        check_choice("backend", backend, Backend)
        check_groups(groups)
        check_choice("reduction", reduction, Reduction)
        self.groups = groups
        self.settings = check_settings(**options)
        self.reduction: Reduction = reduction
        self.backend: Backend = backend

    def forward(
        self,
        logits: Logits,
        *,
        seed: int | Tensor | None = None,
        voxel_mask: Tensor | None = None,
        available: Tensor | None = None,
        return_stats: bool = False,
    ) -> Any:
        """The loss of `logits`, `[B, M, C, *spatial]` or M tensors `[B, C, *spatial]`; with `return_stats` a pair."""
        result: Tensor | tuple[Tensor, GSSStatistics] = fused_gss_loss(  # type: ignore[call-overload]
            logits,
            self.groups,
            seed=seed,
            voxel_mask=voxel_mask,
            available=available,
            reduction=self.reduction,
            return_stats=return_stats,
            backend=self.backend,
            **self.settings._asdict(),
        )
        return result


class GSSObjective(_Module):
    """`fused_gss_objective` as a module; see there for the arguments.

    Example:
        >>> import torch
        >>> from gss_kernels import BRATS_2018, GSSObjective
        >>> objective = GSSObjective(BRATS_2018, gss_weight=0.3 * 8.0**2 / 10)
        >>> logits = torch.randn(2, 4, 4, 8, 8, 8, requires_grad=True)
        >>> objective(logits, torch.randint(0, 4, (2, 8, 8, 8))).backward()
    """

    def __init__(
        self,
        groups: CategoryGroups,
        *,
        supervised_weight: float = 1.0,
        gss_weight: float = 1.0,
        ignore_index: int | None = None,
        backend: Backend = "auto",
        **options: Unpack[GSSOptions],
    ) -> None:
        super().__init__()
        check_choice("backend", backend, Backend)
        check_groups(groups)
        self.groups = groups
        self.settings = check_settings(**options)
        self.supervised_weight = check_weight("supervised_weight", supervised_weight)
        self.gss_weight = check_weight("gss_weight", gss_weight)
        self.ignore_index = check_ignore_index(ignore_index)
        self.backend: Backend = backend

    def forward(self, logits: Logits, labels: Tensor, **options: Any) -> Any:
        """The total, or with `return_terms` or `return_stats` `ObjectiveTerms`.

        Args:
            logits: `[B, M, C, *spatial]` or M tensors `[B, C, *spatial]`.
            labels: `[B, *spatial]`.
            options: `seed`, `voxel_mask`, `available`, `process_group`, `return_terms`, `return_stats`.
        """
        result: Tensor | ObjectiveTerms = fused_gss_objective(
            logits,
            labels,
            self.groups,
            supervised_weight=self.supervised_weight,
            gss_weight=self.gss_weight,
            ignore_index=self.ignore_index,
            backend=self.backend,
            **self.settings._asdict(),
            **options,
        )
        return result


class SegmentationLoss(_Module):
    """The sum of both terms of `fused_segmentation_loss` as a module; see there for the arguments.

    Example:
        >>> import torch
        >>> from gss_kernels import SegmentationLoss
        >>> loss = SegmentationLoss()
        >>> logits = torch.randn(2, 4, 8, 8, 8, requires_grad=True)
        >>> loss(logits, torch.randint(0, 4, (2, 8, 8, 8))).backward()
    """

    def __init__(
        self, input_kind: InputKind = "logits", backend: Backend = "auto", *, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        check_choice("backend", backend, Backend)
        check_choice("input_kind", input_kind, InputKind)
        self.input_kind: InputKind = input_kind
        self.ignore_index = check_ignore_index(ignore_index)
        self.backend: Backend = backend

    def forward(
        self,
        input: Tensor,  # noqa: A002  (PyTorch's losses call it so)
        labels: Tensor,
        *,
        available: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy plus soft Dice of `input` `[B, C, *spatial]` with `labels` `[B, *spatial]`, 0-dim."""
        terms = fused_segmentation_loss(
            input,
            labels,
            input_kind=self.input_kind,
            available=available,
            ignore_index=self.ignore_index,
            backend=self.backend,
        )
        return terms.cross_entropy + terms.dice
