"""The launch tuner on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import triton

from gss_kernels import CategoryGroups, fused_gss_loss, fused_gss_objective, fused_segmentation_loss, tune
from gss_kernels.triton import tuned, tuner
from gss_kernels.triton.configuration import Configuration, KernelName
from tests.gpu.losses import normal_logits, random_labels

_GROUPS = CategoryGroups(((0,), (1,), (0, 1)))
_SHAPE = (1, 2, 3, 24, 24, 24)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and few alternatives, as most of the time goes into compiling."""
    monkeypatch.setenv("GSS_KERNELS_CACHE", str(tmp_path))
    monkeypatch.setattr(tuner, "VOXELS_PER_THREAD", (1, 4))
    monkeypatch.setattr(tuner, "NUM_WARPS", (2,))
    monkeypatch.setattr(tuner, "PROGRAMS_PER_MULTIPROCESSOR", (2, 8))
    tuned.forget()
    yield tmp_path
    tuned.forget()


def test_losses_are_right_with_what_was_tuned(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ("--modalities", "2", "--categories", "3", "--crop", "24", "24", "24", "--batch", "1")
    assert tune.main([*size, "--dtype", "float32", "--supervised"]) == 0
    found = tuned.read(folder / "tuned.json")
    assert {launch.kernel for launch in found} == set(get_args(KernelName))
    assert {(own.card, own.triton_version) for own in found} == {(torch.cuda.get_device_name(), triton.__version__)}
    assert "left out" not in capsys.readouterr().out
    assert_losses_are_right()


@pytest.mark.parametrize("voxels_per_thread", [1, 2, 4])
@pytest.mark.parametrize("num_warps", [2, 4, 8])
def test_losses_are_right_with_whatever_may_be_found(folder: Path, voxels_per_thread: int, num_warps: int) -> None:
    size = tuner.Size(*_SHAPE[:3], _SHAPE[3:], torch.float32, torch.device("cuda"))
    configuration = Configuration(voxels_per_thread, num_warps, 3)
    tuned.save({workload.launch: configuration for workload in tuner.workloads(size, supervised=True)})
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
