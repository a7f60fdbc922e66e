"""Which backend a call gets, and what a backend has to offer."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from gss_kernels.settings import Backend, check_choice
from gss_kernels.tensors import Inputs

Loss = Literal["gss", "segmentation"]

_TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
_TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class ForwardPass(Protocol):
    """A forward pass: the value, what the backward pass needs and other results, and what a first one can use."""

    def __call__(self, inputs: Inputs, call: Any, *, keep: bool) -> tuple[Tensor, Tensor, Any]:
        """Run it; without `keep` nothing is kept for a first backward pass."""


class BackwardPass(Protocol):
    """Its backward pass: the gradient, in the logits' form, under that of the value."""

    def __call__(self, inputs: Inputs, call: Any, results: Tensor, upstream: Tensor, kept: Any) -> tuple[Tensor, ...]:
        """Run it; `kept` is what the forward pass kept, None if that was nothing or was used up."""


class Passes(NamedTuple):
    """The hand-written passes of a loss."""

    forward: ForwardPass
    backward: BackwardPass


@functools.cache
def passes_of(loss: Loss, backend: Backend) -> Passes:
    """Those of backend "cpu" or "triton"."""
    room = importlib.import_module(f"gss_kernels.{loss}.{'launch' if backend == 'triton' else backend}")
    return Passes(room.forward, room.backward)


def pick_backend(backend: Backend, device: torch.device, dtype: torch.dtype, *, argument: str) -> Backend:
    """The backend for tensors on `device`; never "auto".

    Raises:
        ValueError: the backend does not take the tensors; `argument` is their name.
        RuntimeError: "triton" without Triton installed.
    """
    check_choice("backend", backend, Backend)
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
