"""Every public function once on the GPU against the CPU, and how fast the GPU copies: `gpu.sh loss` begins with it.

Rounding flips the vote of a few voxels in a million, whose gradients and targets may differ: at most `_VOXELS_OFF` of
them. Without a GPU, in a dry run, the CPU is compared with the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.conftest import Note
from benchmarks.drawing import draw_labels, draw_logits
from benchmarks.loss_forms import DTYPES, GROUPS, LOSSES, MODALITIES, SAMPLES, LossForm
from benchmarks.timing import copy_bytes_per_second
from gss_kernels import (
    GSSLoss,
    SegmentationLoss,
    draw_voxel_mask,
    fused_gss_loss,
    fused_segmentation_loss,
    gss_loss_reference,
    gss_soft_targets,
)
from gss_kernels.settings import Backend

_GPU = torch.cuda.is_available()
_CPU: tuple[str, Backend] = ("cpu", "cpu")
_SIDES: list[tuple[str, Backend]] = [("cuda", "triton"), _CPU] if _GPU else [_CPU, ("cpu", "reference")]
_EDGE = 32 if _GPU else 12
_VALUE_TOLERANCE, _VOXELS_OFF = 1e-4, 2
_FORMS = [
    LossForm(loss, categories, dtype, _EDGE, training)
    for dtype in DTYPES
    for categories in GROUPS
    for loss in LOSSES
    for training in (True, False)
    if training or loss != "segmentation"
]
Call = Callable[[Tensor, Tensor, Backend], Tensor]
_CALLS: dict[str, Call] = {
    "GSSLoss": lambda logits, _, backend: GSSLoss(GROUPS[4], backend=backend)(logits, seed=1),
    "SegmentationLoss": lambda logits, labels, backend: SegmentationLoss(backend=backend)(logits[:, 0], labels),
    "gss_loss_reference": lambda logits, _, __: gss_loss_reference(logits, GROUPS[4], seed=1),
    "fused_gss_loss with statistics": lambda logits, _, backend: torch.cat(
        [part.flatten() for part in fused_gss_loss(logits, GROUPS[4], seed=1, return_stats=True, backend=backend)[1]]
    ),
    "fused_segmentation_loss of probabilities": lambda logits, labels, backend: torch.stack(
        fused_segmentation_loss(logits[:, 0].softmax(1), labels, input_kind="probabilities", backend=backend)
    ),
    "draw_voxel_mask": lambda logits, _, __: draw_voxel_mask(
        1, num_samples=SAMPLES, num_modalities=MODALITIES, spatial=(_EDGE,) * 3, device=logits.device
    ).float(),
}


@pytest.mark.parametrize("form", _FORMS, ids=str)
def test_loss_and_gradient(note: Note, form: LossForm) -> None:
    logits = draw_logits(form.shape, DTYPES[form.dtype], torch.device("cpu"))
    labels = draw_labels(form.label_shape, form.categories, torch.device("cpu"))
    values, gradients = [], []
    for device, backend in _SIDES:
        value, leaf = form.step_of(logits.to(device), labels.to(device), backend).forward()
        values.append(value.detach().cpu())
        own = torch.autograd.grad(value, leaf)
        gradients.append(torch.stack([part.cpu().float() for part in own], dim=1).flatten(1, -5))
    _check(note, str(form), values)
    got, want = gradients
    scale = float(want.abs().max())
    _check_voxels(note, f"gradient of {form}", torch.isclose(got, want, rtol=2**-7, atol=1e-3 * scale))


@pytest.mark.parametrize("name", _CALLS)
def test_function(note: Note, name: str) -> None:
    _check(note, name, [_CALLS[name](*_inputs(device), backend).detach().cpu() for device, backend in _SIDES])


def test_soft_targets(note: Note) -> None:
    got, want = (gss_soft_targets(_inputs(device)[0], GROUPS[4], backend=backend).cpu() for device, backend in _SIDES)
    _check_voxels(note, "gss_soft_targets", torch.isclose(got, want, rtol=1e-4, atol=1e-5))


@pytest.mark.skipif(not _GPU, reason="the copy is timed on a GPU")
def test_copy(note: Note) -> None:
    note("copy", gb_per_s=copy_bytes_per_second() / 1e9)


def _inputs(device: str) -> tuple[Tensor, Tensor]:
    logits = draw_logits((SAMPLES, MODALITIES, 4, *(_EDGE,) * 3), torch.float32, torch.device("cpu"))
    return logits.to(device), draw_labels((SAMPLES, *(_EDGE,) * 3), 4, torch.device("cpu")).to(device)


def _check(note: Note, name: str, values: list[Tensor]) -> None:
    got, want = values
    error = float(((got - want).abs() / want.abs().clamp(min=1)).max())
    note("check", name=name, error=error, tolerance=_VALUE_TOLERANCE)
    assert error <= _VALUE_TOLERANCE


def _check_voxels(note: Note, name: str, equal: Tensor) -> None:
    """`equal` is `[B, ..., C, D, H, W]`."""
    off = int((~equal.all(dim=-4)).sum())
    note("check", name=name, voxels_off=off, of=equal.numel() // equal.shape[-4], tolerance=_VOXELS_OFF)
    assert off <= _VOXELS_OFF
