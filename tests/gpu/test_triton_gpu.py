"""The GSS loss of the Triton backend on a GPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from gss_kernels import BRATS_2015, BRATS_2018, fused_gss_loss, gss_soft_targets
from tests.gpu.losses import NAMES, make_loss, normal_logits
from tests.gss_kernels.behaviours import EVERYWHERE, FUSED, Behaviour, loss_and_gradient, random_tensor
from tests.gss_kernels.cases import TABLE, check, run

# Exponentials and logarithms are the hardware's approximations, good to about two units in the last place.
_ARITHMETIC = 1e-4


@pytest.mark.parametrize("name", TABLE)
def test_case_agrees_with_oracle(name: str) -> None:
    check(TABLE[name], run(TABLE[name], "triton", "cuda"), arithmetic=_ARITHMETIC)


@pytest.mark.parametrize("name", ["brats_2018", "released", "available_few", "temperature_3.7"])
def test_reference_in_float64_agrees_with_oracle(name: str) -> None:
    case = dataclasses.replace(TABLE[name], dtype=torch.float64)
    check(case, run(case, "reference", "cuda"))


@pytest.mark.parametrize("behaviour", EVERYWHERE + FUSED, ids=lambda behaviour: behaviour.__name__)
def test_behaviour(behaviour: Behaviour) -> None:
    behaviour("triton", "cuda")


def test_auto_is_triton_on_a_gpu() -> None:
    logits = random_tensor("cuda")
    one, other = (fused_gss_loss(logits, BRATS_2018, seed=1, backend=name) for name in ("auto", "triton"))
    assert torch.equal(one, other)


def test_backends_that_do_not_take_the_logits() -> None:
    logits = random_tensor("cuda")
    with pytest.raises(ValueError, match="backend: got 'cpu'"):
        fused_gss_loss(logits, BRATS_2018, backend="cpu")
    with pytest.raises(ValueError, match=r"logits: got dtype torch.float64"):
        fused_gss_loss(logits.double(), BRATS_2018)
    with pytest.raises(ValueError, match=r"seed: .*device"):
        fused_gss_loss(logits, BRATS_2018, seed=torch.tensor(1))
    with pytest.raises(ValueError, match=r"available: .*device"):
        fused_gss_loss(logits, BRATS_2018, available=torch.ones(2, 4, dtype=torch.bool))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_volume_agrees_with_the_cpu(dtype: torch.dtype) -> None:
    """Rounding flips the vote of a few voxels in a million; those alone may differ."""
    logits = normal_logits((2, 4, 5, 61, 64, 67), dtype)
    options: dict[str, Any] = {"seed": 2**40 + 3, "mask_ratio": 0.2}
    losses, gradient = loss_and_gradient(logits, "triton", BRATS_2015, **options)
    want, want_gradient = loss_and_gradient(logits.cpu(), "cpu", BRATS_2015, **options)
    torch.testing.assert_close(losses.cpu(), want, rtol=1e-4, atol=1e-6)
    gradient, want_gradient = gradient.cpu().double(), want_gradient.double()
    scale = float(want_gradient.abs().max())
    unequal = ~torch.isclose(gradient, want_gradient, rtol=2**-7, atol=1e-3 * scale)
    assert int(unequal.any(dim=2).sum()) <= 1e-5 * unequal.any(dim=2).numel()
    target = gss_soft_targets(logits, BRATS_2015).cpu()
    unequal = ~torch.isclose(target, gss_soft_targets(logits.cpu(), BRATS_2015), rtol=1e-4, atol=1e-5)
    assert int(unequal.any(dim=1).sum()) <= 1e-5 * unequal.any(dim=1).numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_repeats_to_the_bit(name: str, dtype: torch.dtype) -> None:
    options: dict[str, Any] = {} if name == "segmentation" else {"seed": 4}
    loss = make_loss(name, (2, 4, 4, 64, 64, 64), dtype, **options)
    for one, other in zip(loss.step(), loss.step(), strict=True):
        assert torch.equal(one, other)
