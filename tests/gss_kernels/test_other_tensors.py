"""What those who plug the losses in bring along: tensors of other libraries, and probabilities instead of logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gss_kernels import BRATS_2018, fused_gss_loss, fused_gss_objective, fused_segmentation_loss, gss_soft_targets
from gss_kernels.settings import Backend

_SPATIAL = (3, 5, 4)


class LabelledTensor(torch.Tensor):
    """A subclass that keeps its kind through PyTorch's functions, as MONAI's `MetaTensor` does."""

    def new_empty(self, *_arguments: Any, **_options: Any) -> Tensor:
        raise TypeError("new_empty: not of this kind of tensor")


def meta_tensor(tensor: Tensor) -> Tensor:
    monai_data = pytest.importorskip("monai.data", reason="MONAI is not installed")
    made: Tensor = monai_data.MetaTensor(tensor)
    return made


def labelled_tensor(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(LabelledTensor)


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 4, 4, *_SPATIAL, generator=generator)
    return logits, torch.randint(0, 4, (2, *_SPATIAL), generator=generator), torch.ones(2, 4, dtype=torch.bool)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("other", [meta_tensor, labelled_tensor])
def test_tensors_of_a_subclass(other: Callable[[Tensor], Tensor], backend: Backend) -> None:
    """They count as what they hold, in every place; the gradient finds its way, and results are plain tensors."""
    logits, labels, available = arguments()
    seed, keep = torch.tensor(3), torch.rand(logits[:, :, 0].shape) > 0.2

    def results(make: Callable[[Tensor], Tensor]) -> list[Tensor]:
        leaf = logits.clone().requires_grad_()
        z, y = make(leaf * 1), make(labels)
        options: dict[str, Any] = {"available": make(available), "backend": backend}
        values = [
            fused_gss_objective(z, y, BRATS_2018, seed=make(seed), **options),
            fused_gss_loss(list(z.unbind(1)), BRATS_2018, voxel_mask=make(keep), **options),
            *fused_segmentation_loss(z[:, 0], y, available=make(available[:, 0]), backend=backend),
        ]
        (gradient,) = torch.autograd.grad(sum(values), leaf)
        return [*values, gradient, gss_soft_targets(z, BRATS_2018, **options)]

    for got, want in zip(results(other), results(lambda own: own), strict=True):
        assert type(got) is Tensor
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("temperature", [8.0, 3.7])
def test_logarithms_of_probabilities_are_logits(backend: Backend, temperature: float) -> None:
    """A softmax does not see what is added to all logits of a voxel, which is all that the logarithm changes."""
    logits, labels, _ = arguments()
    options: dict[str, Any] = {"seed": 1, "temperature": temperature, "backend": backend}
    leaves = [logits.double().requires_grad_(), logits.double().softmax(dim=2).requires_grad_()]
    values = [fused_gss_objective(own, labels, BRATS_2018, **options) for own in (leaves[0], leaves[1].log())]
    torch.testing.assert_close(values[1], values[0], rtol=1e-12, atol=0)
    of_logits, of_probabilities = (torch.autograd.grad(*pair)[0] for pair in zip(values, leaves, strict=True))
    probabilities = leaves[1].detach()
    through_softmax = probabilities * (of_probabilities - (probabilities * of_probabilities).sum(dim=2, keepdim=True))
    torch.testing.assert_close(through_softmax, of_logits, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_probabilities_of_exactly_0_and_1(backend: Backend) -> None:
    """With the bound that the documents name, nothing is infinite and no gradient is NaN."""
    logits, labels, _ = arguments()
    probabilities = torch.nn.functional.one_hot(logits.argmax(dim=2), 4).movedim(-1, 2).float().requires_grad_()
    z = probabilities.clamp(min=1e-30).log()
    total = fused_gss_objective(z, labels, BRATS_2018, seed=1, backend=backend)
    (gradient,) = torch.autograd.grad(total, probabilities)
    assert total.isfinite()
    assert gradient.isfinite().all()
