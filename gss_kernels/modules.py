"""The losses as modules, with their arguments fixed."""

from __future__ import annotations

from typing import Any, Literal, overload

from torch import Tensor, nn

from gss_kernels.functional import fused_gss_loss
from gss_kernels.groups import CategoryGroups, check_groups
from gss_kernels.inputs import Logits
from gss_kernels.results import GSSStatistics
from gss_kernels.settings import (
    Backend,
    DistillationSettings,
    Divergence,
    Reduction,
    Semantics,
    VoteSettings,
    check_backend,
    check_mask_ratio,
)
from gss_kernels.supervised import fused_segmentation_loss
from gss_kernels.supervised_settings import InputKind, check_input_kind


class GSSLoss(nn.Module):
    """`fused_gss_loss` as a module; see there for the arguments, which are checked here already.

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
        temperature: float = 8.0,
        leader_threshold: float = 0.75,
        member_threshold: float = 0.85,
        leader_blend: float = 0.3,
        mask_ratio: float = 0.2,
        divergence: Divergence = "kl",
        semantics: Semantics = "paper",
        class_weighting: bool = True,
        clamp: float = 0.005,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        check_groups(groups)
        self.groups = groups
        self.vote = VoteSettings(temperature, leader_threshold, member_threshold, leader_blend, semantics)
        self.distillation = DistillationSettings(divergence, class_weighting, clamp, reduction)
        check_mask_ratio(mask_ratio)
        check_backend(backend)
        self.mask_ratio = float(mask_ratio)
        self.backend: Backend = backend

    @overload
    def forward(
        self,
        logits: Logits,
        *,
        seed: int | Tensor | None = None,
        voxel_mask: Tensor | None = None,
        available: Tensor | None = None,
        return_stats: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        logits: Logits,
        *,
        seed: int | Tensor | None = None,
        voxel_mask: Tensor | None = None,
        available: Tensor | None = None,
        return_stats: Literal[True],
    ) -> tuple[Tensor, GSSStatistics]: ...

    def forward(
        self,
        logits: Logits,
        *,
        seed: int | Tensor | None = None,
        voxel_mask: Tensor | None = None,
        available: Tensor | None = None,
        return_stats: bool = False,
    ) -> Tensor | tuple[Tensor, GSSStatistics]:
        """The loss of `logits`, `[B, M, C, *spatial]` or M tensors `[B, C, *spatial]`; with `return_stats` a pair."""
        call: dict[str, Any] = {
            "seed": seed,
            "voxel_mask": voxel_mask,
            "available": available,
            "return_stats": return_stats,
        }
        result: Tensor | tuple[Tensor, GSSStatistics] = fused_gss_loss(
            logits,
            self.groups,
            **vars(self.vote),
            **vars(self.distillation),
            mask_ratio=self.mask_ratio,
            backend=self.backend,
            **call,
        )
        return result

    def extra_repr(self) -> str:
        """The settings, for `print`."""
        return (
            f"{self.groups}, {self.vote}, {self.distillation}, mask_ratio={self.mask_ratio}, backend={self.backend!r}"
        )


class SegmentationLoss(nn.Module):
    """The sum of both terms of `fused_segmentation_loss` as a module; see there for the arguments.

    Example:
        >>> import torch
        >>> from gss_kernels import SegmentationLoss
        >>> loss = SegmentationLoss()
        >>> logits = torch.randn(2, 4, 8, 8, 8, requires_grad=True)
        >>> loss(logits, torch.randint(0, 4, (2, 8, 8, 8))).backward()
    """

    def __init__(self, input_kind: InputKind = "logits", backend: Backend = "auto") -> None:
        super().__init__()
        check_input_kind(input_kind)
        check_backend(backend)
        self.input_kind: InputKind = input_kind
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
            input, labels, input_kind=self.input_kind, available=available, backend=self.backend
        )
        return terms.cross_entropy + terms.dice

    def extra_repr(self) -> str:
        """The settings, for `print`."""
        return f"input_kind={self.input_kind!r}, backend={self.backend!r}"
