"""Launches tuned on a GPU: GSS_KERNELS_AUTOTUNE=1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from gss_kernels import CategoryGroups, fused_gss_loss, fused_gss_objective, fused_segmentation_loss
from gss_kernels.triton import tuned
from gss_kernels.triton.configuration import Configuration, KernelName
from gss_kernels.triton.tuned import Launch, trying
from tests.gpu.losses import normal_logits, random_labels

_GROUPS = CategoryGroups(((0,), (1,), (0, 1)))
_SHAPE = (1, 2, 3, 24, 24, 24)


def test_losses_are_right_with_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few alternatives, as most of the time goes into compiling."""
    monkeypatch.setenv("GSS_KERNELS_AUTOTUNE", "1")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tuned, "_chosen", {})
    monkeypatch.setattr(tuned, "VOXELS_PER_THREAD", (1, 4))
    monkeypatch.setattr(tuned, "NUM_WARPS", (2,))
    monkeypatch.setattr(tuned, "PROGRAMS_PER_MULTIPROCESSOR", (2, 8))
    assert_losses_are_right()
    found = dict(tuned._chosen)
    assert {launch.kernel for launch in found} == set(get_args(KernelName))
    kept = [json.loads(file.read_text())["milliseconds"] for file in tmp_path.glob("*/configurations.json")]
    # With the table's own, and none left out: three forward passes, three backward passes.
    assert sorted(map(len, kept)) == [3, 3, 3, 5, 5, 5]

    def no_clock(*_arguments: object) -> float:
        raise AssertionError("timed again")

    tuned._chosen.clear()
    monkeypatch.setattr(tuned, "_time", no_clock)
    assert_losses_are_right()
    assert tuned._chosen == found


@pytest.mark.parametrize("voxels_per_thread", [1, 2, 4])
@pytest.mark.parametrize("num_warps", [2, 4, 8])
def test_losses_are_right_with_whatever_may_be_found(voxels_per_thread: int, num_warps: int) -> None:
    device = normal_logits(_SHAPE).device
    kinds: list[tuple[KernelName, int, bool]] = [
        ("forward", 2, False),
        ("backward", 2, False),
        ("forward", 2, True),
        ("backward", 2, True),
        ("segmentation_forward", 1, True),
        ("segmentation_backward", 1, True),
    ]
    launches = [Launch(kernel, M, 3, supervised, torch.float32, device) for kernel, M, supervised in kinds]
    with trying(dict.fromkeys(launches, Configuration(voxels_per_thread, num_warps, 3))):
        assert_losses_are_right()


def assert_losses_are_right() -> None:
    """Rounding flips the vote of a few voxels in a million; those alone may differ."""
    labels = random_labels((1, *_SHAPE[3:]), 3)
    options: dict[str, Any] = {"seed": 3}
    for call in (
        lambda logits, backend: fused_gss_loss(logits, _GROUPS, backend=backend, **options),
        lambda logits, backend: fused_gss_objective(logits, labels, _GROUPS, backend=backend, **options),
        lambda logits, backend: sum(fused_segmentation_loss(logits[:, 0], labels, backend=backend)),
    ):
        steps = []
        for backend in ("triton", "reference"):
            leaf = normal_logits(_SHAPE).requires_grad_()
            value = call(leaf, backend)
            steps.append((value.detach(), *torch.autograd.grad(value, leaf)))
        (value, gradient), (want, want_gradient) = steps
        torch.testing.assert_close(value, want, rtol=1e-4, atol=1e-6)
        scale = float(want_gradient.abs().max())
        unequal = ~torch.isclose(gradient, want_gradient, rtol=1e-3, atol=1e-3 * scale)
        assert int(unequal.any(dim=2).any(dim=1).sum()) <= 2
