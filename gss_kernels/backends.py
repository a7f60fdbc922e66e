"""Which backend a call gets, and where it is."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from typing import Any, Literal

import torch

from gss_kernels.settings import Backend, check_choice

Loss = Literal["gss", "segmentation"]

_TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
_TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def backend_of(loss: Loss, backend: Backend) -> Any:
    """The module of a loss's backend.

    "cpu" and "triton" have the two passes. `forward(inputs, call, *, keep)` returns the value, a tensor of the other
    results and of what the backward pass needs, and with `keep` what a first backward pass can use.
    `backward(inputs, call, results, upstream, kept)` returns the gradients of the logits' tensors under that of the
    value. "reference" has `loss`, and all of the GSS loss have `soft_targets`.
    """
    return importlib.import_module(f"gss_kernels.{loss}.{'launch' if backend == 'triton' else backend}")


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
