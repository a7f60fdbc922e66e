"""Which backend a call gets, and what a backend has to offer."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, Protocol

import torch
from torch import Tensor

from gss_kernels.call import GroupCall, GroupResults
from gss_kernels.cpu import (
    cpu_group_backward,
    cpu_group_forward,
    cpu_segmentation_backward,
    cpu_segmentation_forward,
)
from gss_kernels.inputs import GroupLogits
from gss_kernels.settings import Backend, check_backend

_TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
_TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pick_backend(backend: Backend, device: torch.device, dtype: torch.dtype, *, argument: str) -> Backend:
    """The backend for tensors on `device`; never "auto".

    Raises:
        ValueError: the backend does not take the tensors; `argument` is their name.
        RuntimeError: "triton" without Triton installed.
    """
    check_backend(backend)
    name = backend
    if name == "auto":
        name = "cpu" if device.type == "cpu" else "triton"
    if name == "cpu" and device.type != "cpu":
        raise ValueError(
            f"backend: got 'cpu' for {argument} on {device}, need it on the CPU, or 'triton' or 'reference'"
        )
    if name == "triton":
        _check_triton(device, dtype, argument)
    return name


def _check_triton(device: torch.device, dtype: torch.dtype, argument: str) -> None:
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"{argument}: got device {device}, need cpu or cuda, or backend='reference'")
    if not _TRITON_INSTALLED:
        raise RuntimeError(
            "backend 'triton' needs the package triton, which is not installed (it exists for Linux): install it, or "
            "choose backend='cpu' for tensors on the CPU, backend='reference' for others"
        )
    if device.type == "cpu" and not _TRITON_INTERPRETED:
        raise ValueError(
            f"backend: got 'triton' for {argument} on the CPU, need it on a GPU (or the environment variable "
            "TRITON_INTERPRET=1 before the import, to debug the kernels on the CPU)"
        )
    if dtype == torch.float64:
        raise ValueError(
            f"{argument}: got dtype {dtype} for backend 'triton', need float32, bfloat16 or float16, or "
            "backend='reference'"
        )


class GroupForward(Protocol):
    """A forward pass of the group loss: the results, and with `keep` what a first backward pass can use."""

    def __call__(self, logits: GroupLogits, call: GroupCall, *, keep: bool) -> tuple[GroupResults, Any]:
        """Run it."""


class GroupBackward(Protocol):
    """Its backward pass: the gradient, in the logits' form, under that of the total (a scalar) or the losses."""

    def __call__(
        self, logits: GroupLogits, call: GroupCall, coefficients: Tensor, upstream: Tensor, kept: Any
    ) -> tuple[Tensor, ...]:
        """Run it; `kept` is what the forward pass kept, None if that was nothing or was used up."""


def group_passes(backend: Backend) -> tuple[GroupForward, GroupBackward]:
    """The hand-written passes of the group loss, of "cpu" or "triton"."""
    if backend == "triton":
        from gss_kernels.triton import triton_group_backward, triton_group_forward  # noqa: PLC0415  (optional)

        return triton_group_forward, triton_group_backward
    return cpu_group_forward, cpu_group_backward


class SegmentationForward(Protocol):
    """A forward pass of the supervised loss: the terms `[2]` and the coefficients `[4, B, 1, C]`."""

    def __call__(
        self, prediction: Tensor, labels: Tensor, available: Tensor | None, *, from_logits: bool
    ) -> tuple[Tensor, Tensor]:
        """Run it."""


class SegmentationBackward(Protocol):
    """Its backward pass: the gradient of the prediction under that of the terms, `[2]`."""

    def __call__(
        self,
        prediction: Tensor,
        labels: Tensor,
        available: Tensor | None,
        coefficients: Tensor,
        upstream: Tensor,
        *,
        from_logits: bool,
    ) -> Tensor:
        """Run it."""


def segmentation_passes(backend: Backend) -> tuple[SegmentationForward, SegmentationBackward]:
    """The hand-written passes of the supervised loss of one prediction, of "cpu" or "triton"."""
    if backend == "triton":
        from gss_kernels.triton import (  # noqa: PLC0415  (Triton is optional)
            triton_segmentation_backward,
            triton_segmentation_forward,
        )

        return triton_segmentation_forward, triton_segmentation_backward
    return cpu_segmentation_forward, cpu_segmentation_backward
