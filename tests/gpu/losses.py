"""The public losses on a GPU, ready to be called over and over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from gss_kernels import CategoryGroups, fused_gss_loss, fused_gss_objective, fused_segmentation_loss

NAMES = ("gss", "objective", "segmentation")


@dataclass(frozen=True)
class Loss:
    """One loss of fixed arguments; `call` gives a scalar."""

    leaves: list[Tensor]
    call: Callable[[], Tensor]

    def step(self) -> tuple[Tensor, ...]:
        """Loss and gradients."""
        loss = self.call()
        return (loss.detach(), *torch.autograd.grad(loss, self.leaves))

    @property
    def gradient_bytes(self) -> int:
        return sum(leaf.nbytes for leaf in self.leaves)


def normal_logits(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return (4 * torch.randn(shape, device="cuda", generator=generator)).to(dtype)


def random_labels(shape: tuple[int, ...], categories: int, seed: int = 1) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randint(categories, shape, device="cuda", generator=generator, dtype=torch.uint8)


def round_robin(modalities: int, categories: int) -> CategoryGroups:
    """One leader for every category but the last, which all lead."""
    return CategoryGroups((*((c % modalities,) for c in range(categories - 1)), tuple(range(modalities))))


def require_gpu_memory(needed: float) -> None:
    """Skip the test, and say so, where fewer bytes are free."""
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    if free < needed:
        pytest.skip(f"needs {needed / 2**30:.1f} GiB of GPU memory, {free / 2**30:.1f} GiB are free")


def make_loss(
    name: str,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    *,
    as_sequence: bool = False,
    logits: Tensor | None = None,
    **options: Any,
) -> Loss:
    """A loss of `NAMES` of logits of `shape`, `[B, M, C, *spatial]`; segmentation takes the first modality alone.

    The logits are random unless given; options are those of the loss.
    """
    if logits is None:
        logits = normal_logits(shape, dtype)
    samples, modalities, categories, *spatial = shape
    labels = random_labels((samples, *spatial), categories)
    groups = round_robin(modalities, categories)
    parts = [logits[:, 0]] if name == "segmentation" else list(logits.unbind(1)) if as_sequence else [logits]
    leaves = [part.detach().contiguous().requires_grad_() for part in parts]
    inputs = leaves if as_sequence else leaves[0]

    def call() -> Tensor:
        if name == "gss":
            return fused_gss_loss(inputs, groups, **options)
        if name == "objective":
            return fused_gss_objective(inputs, labels, groups, **options)
        terms = fused_segmentation_loss(leaves[0], labels, **options)
        return terms.cross_entropy + terms.dice

    return Loss(leaves, call)
