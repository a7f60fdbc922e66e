"""The losses as modules, with their arguments fixed and checked."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from gss_kernels.groups import CategoryGroups, check_groups
from gss_kernels.gss.api import fused_gss_loss, fused_gss_objective
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


class _Loss(nn.Module):
    def __init__(self, backend: Backend, **arguments: Any) -> None:
        super().__init__()
        check_choice("backend", backend, Backend)
        self.arguments: dict[str, Any] = arguments | {"backend": backend}

    def extra_repr(self) -> str:
        """The arguments, for `print`."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())


class GSSLoss(_Loss):
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
        check_groups(groups)
        check_choice("reduction", reduction, Reduction)
        super().__init__(backend, groups=groups, **check_settings(**options)._asdict(), reduction=reduction)

    def forward(self, logits: Logits, **options: Any) -> Any:
        """The loss of `logits`, `[B, M, C, *spatial]` or M tensors `[B, C, *spatial]`; with `return_stats` a pair.

        Options are `seed`, `voxel_mask`, `available` and `return_stats`.
        """
        return fused_gss_loss(logits, **self.arguments, **options)


class GSSObjective(_Loss):
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
        check_groups(groups)
        super().__init__(
            backend,
            groups=groups,
            **check_settings(**options)._asdict(),
            supervised_weight=check_weight("supervised_weight", supervised_weight),
            gss_weight=check_weight("gss_weight", gss_weight),
            ignore_index=check_ignore_index(ignore_index),
        )

    def forward(self, logits: Logits, labels: Tensor, **options: Any) -> Any:
        """The total of `logits` as for `GSSLoss` and labels `[B, *spatial]`, or `ObjectiveTerms`.

        Options are `seed`, `voxel_mask`, `available`, `process_group`, `return_terms` and `return_stats`.
        """
        return fused_gss_objective(logits, labels, **self.arguments, **options)


class SegmentationLoss(_Loss):
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
        check_choice("input_kind", input_kind, InputKind)
        super().__init__(backend, input_kind=input_kind, ignore_index=check_ignore_index(ignore_index))

    def forward(self, input: Tensor, labels: Tensor, *, available: Tensor | None = None) -> Tensor:  # noqa: A002  (PyTorch's losses call it so)
        """Cross-entropy plus soft Dice of `input` `[B, C, *spatial]` with `labels` `[B, *spatial]`, 0-dim."""
        terms = fused_segmentation_loss(input, labels, available=available, **self.arguments)
        return terms.cross_entropy + terms.dice
