"""What every backend of GSS and supervision in one has to do beyond agreeing with the oracles; one function each.

Each takes the backend's name and the device, and asserts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gss_kernels import BRATS_2018, ObjectiveTerms, fused_gss_loss, fused_gss_objective, fused_segmentation_loss
from gss_kernels.gss.api import _run
from gss_kernels.gss.call import GSSCall, GSSResults
from gss_kernels.settings import Backend, GSSSettings
from gss_kernels.tensors import Inputs, check_logits
from tests.gss_kernels.behaviours import random_tensor
from tests.gss_kernels.cases import BRATS_4, random_logits
from tests.gss_kernels.oracle import Array, Settings, gss
from tests.gss_kernels.segmentation_oracle import segmentation

Behaviour = Callable[[Backend, str], None]
SHAPE = (3, 4, 4, 3, 5)
VOXEL = (1, 2)
# The first sample has all modalities, the second one alone, the third all but one.
AVAILABLE = [[True] * 4, [False, True, False, False], [True, True, False, True]]


def available_tensor(device: str) -> Tensor:
    return torch.tensor(AVAILABLE, device=device)


def random_labels(device: str, shape: tuple[int, ...] = SHAPE) -> Tensor:
    labels = np.random.default_rng(1).integers(0, shape[2], (shape[0], *shape[3:]))
    return torch.from_numpy(labels).to(device, torch.uint8)


def terms_and_gradient(
    logits: Tensor, labels: Tensor, backend: Backend, **options: Any
) -> tuple[ObjectiveTerms, Tensor]:
    """All terms without history, and the gradient of the total."""
    leaf = logits.clone().requires_grad_()
    options = {"mask_ratio": 0.2, "seed": 5, "gss_weight": 3.0} | options
    terms = fused_gss_objective(leaf, labels, BRATS_2018, **options, return_terms=True, backend=backend)
    terms.total.backward()
    assert leaf.grad is not None
    return terms._replace(total=terms.total.detach()), leaf.grad


def tensors_of(outcome: tuple[ObjectiveTerms, Tensor]) -> tuple[Tensor, ...]:
    terms, gradient = outcome
    return (terms.total, terms.cross_entropy, terms.dice, terms.gss, gradient)


def assert_same_bits(one: tuple[ObjectiveTerms, Tensor], other: tuple[ObjectiveTerms, Tensor]) -> None:
    for first, second in zip(tensors_of(one), tensors_of(other), strict=True):
        assert torch.equal(first, second)


def agrees_with_oracles(
    logits: Array, backend: Backend, device: str, temperature: float = 8.0, *, tolerance: float = 1e-4
) -> None:
    """Terms and gradient on a problem of BraTS 2018's groups in float32, nothing masked."""
    B, M = logits.shape[:2]
    labels = random_labels("cpu", logits.shape)
    tensor = torch.from_numpy(logits).to(device, torch.float32)
    terms, gradient = terms_and_gradient(
        tensor, labels.to(device), backend, temperature=temperature, mask_ratio=0.0, gss_weight=1.0
    )
    distillation = gss(logits, BRATS_4, Settings(temperature=temperature))
    supervised = [segmentation(logits[:, m], labels.long().numpy(), "logits") for m in range(M)]
    want = distillation.gradient_under(np.full((B, M), 1 / B))
    want += np.stack([answer.gradient_under(1, 1) for answer in supervised], axis=1)
    for got, answers in ((terms.cross_entropy, "cross_entropy"), (terms.dice, "dice")):
        expected = [getattr(answer, answers) for answer in supervised]
        np.testing.assert_allclose(got.cpu().numpy(), expected, rtol=tolerance, atol=1e-6)
    np.testing.assert_allclose(terms.gss.item(), distillation.mean(), rtol=tolerance, atol=1e-5)
    np.testing.assert_allclose(gradient.cpu().numpy(), want, rtol=tolerance, atol=1e-2 * tolerance)


def separate_losses(
    logits: Tensor, labels: Tensor, available: Tensor | None, backend: Backend, **options: Any
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Cross-entropy and Dice of every modality, and the GSS loss, by the functions for each."""
    has = [None] * 4 if available is None else list(available.unbind(1))
    terms = [
        fused_segmentation_loss(own, labels, available=samples, backend=backend)
        for own, samples in zip(logits.unbind(1), has, strict=True)
    ]
    distillation = fused_gss_loss(logits, BRATS_2018, available=available, backend=backend, **options)
    return [one.cross_entropy for one in terms], [one.dice for one in terms], distillation


def is_the_weighted_sum_of_the_separate_losses(backend: Backend, device: str) -> None:
    labels = random_labels(device)
    for temperature, available in ((8.0, None), (3.7, available_tensor(device))):
        options: dict[str, Any] = {"temperature": temperature, "seed": 2, "mask_ratio": 0.4}
        leaf = random_tensor(device, SHAPE).requires_grad_()
        cross_entropy, dice, distillation = separate_losses(leaf, labels, available, backend, **options)
        total = 0.7 * (sum(cross_entropy) + sum(dice)) + 19.2 * distillation
        total.backward()
        weights: dict[str, Any] = {"supervised_weight": 0.7, "gss_weight": 19.2}
        terms, gradient = terms_and_gradient(leaf.detach(), labels, backend, available=available, **weights, **options)
        torch.testing.assert_close(terms.total, total.detach(), rtol=1e-5, atol=0)
        torch.testing.assert_close(terms.cross_entropy, torch.stack(cross_entropy).detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(terms.dice, torch.stack(dice).detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(terms.gss, distillation.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def nan_reaches_the_total_and_the_modality_s_own_terms(backend: Backend, device: str) -> None:
    logits = random_tensor(device, SHAPE)
    clean, _ = terms_and_gradient(logits, random_labels(device), backend)
    logits[(0, 2, 1, *VOXEL)] = math.nan
    terms, _ = terms_and_gradient(logits, random_labels(device), backend)
    others = [0, 1, 3]
    assert terms.total.isnan()
    assert (terms.cross_entropy[2] + terms.dice[2]).isnan()
    assert torch.equal(terms.cross_entropy[others], clean.cross_entropy[others])
    assert torch.equal(terms.dice[others], clean.dice[others])


def nan_in_a_masked_voxel_reaches_the_supervised_loss_alone(backend: Backend, device: str) -> None:
    keep = torch.ones(3, 4, *SHAPE[3:], dtype=torch.bool, device=device)
    keep[(0, slice(None), *VOXEL)] = False
    options: dict[str, Any] = {"voxel_mask": keep, "seed": None}
    logits = random_tensor(device, SHAPE)
    clean, _ = terms_and_gradient(logits, random_labels(device), backend, **options)
    logits[(0, 2, slice(None), *VOXEL)] = math.nan
    terms, _ = terms_and_gradient(logits, random_labels(device), backend, **options)
    assert torch.equal(terms.gss, clean.gss)
    assert (terms.cross_entropy[2] + terms.dice[2]).isnan()
    assert terms.total.isnan()


def absent_modalities_do_not_matter(backend: Backend, device: str) -> None:
    """Nor do the labels of a sample without any; with and without what the backend may keep of the forward pass."""
    available = available_tensor(device)
    available[2] = False
    for temperature in (8.0, 3.7):
        logits, labels = random_tensor(device, SHAPE), random_labels(device)
        clean = terms_and_gradient(logits, labels, backend, available=available, temperature=temperature)
        logits[~available] = math.nan
        labels[2] = 255
        outcome = terms_and_gradient(logits, labels, backend, available=available, temperature=temperature)
        assert_same_bits(outcome, clean)
        assert not outcome[1][~available].any()
        assert outcome[1][available].any()


def modality_that_no_sample_has_loses_nothing(backend: Backend, device: str) -> None:
    available = available_tensor(device)
    available[:, 3] = False
    logits = random_tensor(device, SHAPE)
    logits[:, 3] = math.nan
    terms, gradient = terms_and_gradient(logits, random_labels(device), backend, available=available)
    assert terms.cross_entropy[3] == terms.dice[3] == 0
    assert (terms.cross_entropy[:3] > 0).all()
    assert not gradient[:, 3].any()
    nothing = torch.zeros(3, 4, dtype=torch.bool, device=device)
    outcome = terms_and_gradient(torch.full_like(logits, math.nan), random_labels(device), backend, available=nothing)
    assert not any(tensor.any() for tensor in tensors_of(outcome))


def single_modality_is_supervised_but_does_not_vote(backend: Backend, device: str) -> None:
    available = available_tensor(device)
    logits, labels = random_tensor(device, SHAPE), random_labels(device)
    options: dict[str, Any] = {"available": available, "temperature": 2.0}
    clean, clean_gradient = terms_and_gradient(logits, labels, backend, **options)
    logits[1, 1] = -logits[1, 1]
    terms, gradient = terms_and_gradient(logits, labels, backend, **options)
    assert torch.equal(terms.gss, clean.gss)
    assert terms.cross_entropy[1] != clean.cross_entropy[1]
    assert gradient[1, 1].any()
    others = available.clone()
    others[:, 1] = False
    assert torch.equal(gradient[others], clean_gradient[others])
    _, without = terms_and_gradient(logits, labels, backend, supervised_weight=0.0, **options)
    assert not without[1].any()


def weight_of_zero_switches_a_loss_off(backend: Backend, device: str) -> None:
    logits, labels, available = random_tensor(device, SHAPE), random_labels(device), available_tensor(device)
    leaf = logits.clone().requires_grad_()
    options: dict[str, Any] = {"seed": 5, "mask_ratio": 0.2, "temperature": 4.0}
    cross_entropy, dice, distillation = separate_losses(leaf, labels, available, backend, **options)
    alone = {"supervised_weight": sum(cross_entropy) + sum(dice), "gss_weight": distillation}
    off = {"supervised_weight": 0.0, "gss_weight": 0.0}
    call = functools.partial(terms_and_gradient, logits, labels, backend, available=available, **options)
    for name, loss in alone.items():
        (want,) = torch.autograd.grad(loss, leaf)
        terms, gradient = call(**off | {name: 2.0})
        torch.testing.assert_close(terms.total, 2 * loss.detach(), rtol=1e-5, atol=0)
        torch.testing.assert_close(gradient, 2 * want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))
    terms, gradient = call(**off)
    assert terms.total == 0
    assert (terms.cross_entropy > 0).all()
    assert not gradient.any()


def huge_logits(backend: Backend, device: str) -> None:
    signs = np.random.default_rng(1).choice([-1e4, 0.0, 1e4], size=(1, 4, 4, 40))
    for temperature in (8.0, 3.7):
        agrees_with_oracles(signs, backend, device, temperature)


def impossible_category(backend: Backend, device: str) -> None:
    """Of probability 0, also where it is the label."""
    logits = random_logits(np.random.default_rng(2), (1, 4, 4, 30)).astype(np.float32).astype(float)
    logits[:, :, 2, 10:] = -math.inf
    logits[:, 1, 0, 20:] = -math.inf
    agrees_with_oracles(logits, backend, device)


def equal_logits(backend: Backend, device: str) -> None:
    agrees_with_oracles(np.full((2, 4, 4, 7), -3.0), backend, device)


def high_temperatures(backend: Backend, device: str) -> None:
    """Where the sharp softmax is no power of the tempered one that a number of 32 bits can hold."""
    logits = random_logits(np.random.default_rng(3), (1, 4, 4, 20)).astype(np.float32).astype(float)
    for temperature in (60.0, 1000.0):
        agrees_with_oracles(logits, backend, device, temperature, tolerance=1e-3)


def full_available_changes_no_bit(backend: Backend, device: str) -> None:
    full = torch.ones(3, 4, dtype=torch.bool, device=device)
    call = functools.partial(terms_and_gradient, random_tensor(device, SHAPE), random_labels(device), backend)
    assert_same_bits(call(), call(available=full))


def label_dtype_and_layout_change_no_bit(backend: Backend, device: str) -> None:
    logits, labels = random_tensor(device, SHAPE), random_labels(device)
    want = terms_and_gradient(logits, labels, backend)
    wide = labels.long().repeat_interleave(2, dim=1)[:, ::2]
    for other in (labels.long(), labels.short(), wide, labels.transpose(1, 2).contiguous().transpose(1, 2)):
        assert_same_bits(terms_and_gradient(logits, other, backend), want)


def runs_repeat_bit_for_bit(backend: Backend, device: str) -> None:
    runs = [terms_and_gradient(random_tensor(device, SHAPE), random_labels(device), backend) for _ in range(2)]
    assert_same_bits(*runs)


def second_backward_repeats_the_first(backend: Backend, device: str) -> None:
    """Also where the backend used up what it kept of the forward pass, and with a sample of a single modality."""
    for temperature in (8.0, 3.7):
        leaf = random_tensor(device, SHAPE).requires_grad_()
        options: dict[str, Any] = {"seed": 3, "temperature": temperature, "available": available_tensor(device)}
        total = fused_gss_objective(leaf, random_labels(device), BRATS_2018, **options, backend=backend)
        (first,) = torch.autograd.grad(total, leaf, retain_graph=True)
        kept = first.clone()
        (second,) = torch.autograd.grad(total, leaf, retain_graph=True)
        (doubled,) = torch.autograd.grad(2 * total, leaf)
        torch.testing.assert_close(second, kept, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(doubled, 2 * kept, rtol=1e-5, atol=1e-7)
        assert torch.equal(first, kept)


def only_the_total_has_a_gradient(backend: Backend, device: str) -> None:
    leaf = random_tensor(device, SHAPE).requires_grad_()
    terms = fused_gss_objective(
        leaf, random_labels(device), BRATS_2018, seed=1, return_terms=True, return_stats=True, backend=backend
    )
    assert terms.statistics is not None
    assert terms.total.requires_grad
    others = (*terms[1:4], *terms.statistics)
    assert not any(tensor.requires_grad for tensor in others)


def returned_form_changes_no_bit(backend: Backend, device: str) -> None:
    gradients = []
    totals = []
    for form in ({}, {"return_terms": True}, {"return_stats": True}):
        leaf = random_tensor(device, SHAPE).requires_grad_()
        result = fused_gss_objective(leaf, random_labels(device), BRATS_2018, seed=1, backend=backend, **form)
        total = result.total if form else result
        gradients += torch.autograd.grad(total, leaf)
        totals.append(total.detach())
    assert all(torch.equal(total, totals[0]) for total in totals)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def gradient_only_where_asked(backend: Backend, device: str) -> None:
    tensors = list(random_tensor(device, SHAPE).unbind(1))
    _, want = terms_and_gradient(random_tensor(device, SHAPE), random_labels(device), backend)
    tensors[2] = tensors[2].clone().requires_grad_()
    options: dict[str, Any] = {"seed": 5, "mask_ratio": 0.2, "gss_weight": 3.0, "backend": backend}
    fused_gss_objective(tensors, random_labels(device), BRATS_2018, **options).backward()
    assert [tensor.grad is not None for tensor in tensors] == [False, False, True, False]
    torch.testing.assert_close(tensors[2].grad, want[:, 2], rtol=1e-5, atol=1e-8)


def no_gradient_no_graph(backend: Backend, device: str) -> None:
    logits, labels = random_tensor(device, SHAPE), random_labels(device)
    want, _ = terms_and_gradient(logits, labels, backend, gss_weight=1.0)
    total = fused_gss_objective(logits, labels, BRATS_2018, seed=5, mask_ratio=0.2, backend=backend)
    assert not total.requires_grad
    assert torch.equal(total, want.total)


def arguments_stay_as_they_are(backend: Backend, device: str) -> None:
    leaf, labels = random_tensor(device, SHAPE).requires_grad_(), random_labels(device)
    fused_gss_objective(leaf, labels, BRATS_2018, seed=3, backend=backend).backward()
    assert torch.equal(leaf.detach(), random_tensor(device, SHAPE))
    assert torch.equal(labels, random_labels(device))


def arguments_changed_before_backward_do_no_harm(backend: Backend, device: str) -> None:
    """The gradient is that of the loss that was returned, or an error."""
    changes: dict[str, Callable[[Tensor], object]] = {"labels": Tensor.zero_, "available": Tensor.logical_not_}
    for name, change in changes.items():
        arguments = {"labels": random_labels(device), "available": available_tensor(device)}
        fixed: dict[str, Any] = {"backend": backend, "seed": 5, "mask_ratio": 0.2, "gss_weight": 3.0}
        _, want = terms_and_gradient(random_tensor(device, SHAPE), **arguments, **fixed)
        leaf = random_tensor(device, SHAPE).requires_grad_()
        total = fused_gss_objective(leaf, groups=BRATS_2018, **arguments, **fixed)
        change(arguments[name])
        try:
            total.backward()
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
        assert leaf.grad is None or torch.equal(leaf.grad, want), name


def double_backward_is_an_error(backend: Backend, device: str) -> None:
    """Also where the penalty on the gradient is one term of several, and could go missing unnoticed."""
    leaf = random_tensor(device, SHAPE).requires_grad_()
    total = fused_gss_objective(leaf, random_labels(device), BRATS_2018, seed=3, backend=backend)

    def penalise_gradient() -> None:
        (gradient,) = torch.autograd.grad(total, leaf, create_graph=True)
        (gradient.square().sum() + leaf.square().sum()).backward()

    with pytest.raises(RuntimeError, match=r"once|twice|second|double"):
        penalise_gradient()


def logits_changed_before_backward_are_noticed(backend: Backend, device: str) -> None:
    leaf = random_tensor(device, SHAPE).requires_grad_()
    logits = leaf * 1
    total = fused_gss_objective(logits, random_labels(device), BRATS_2018, seed=3, backend=backend)
    with torch.no_grad():
        logits.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def unchecked(logits: Tensor, labels: Tensor, available: Tensor | None, backend: Backend) -> tuple[Tensor, Tensor]:
    """Total and terms of the objective without a look at the labels, as on a GPU."""
    call = GSSCall(GSSSettings(), BRATS_2018.leaders, supervised_weight=1.0)
    inputs = Inputs(check_logits(logits, BRATS_2018), labels, available)
    total, results = _run(inputs, call, backend)
    return total, GSSResults.of(results, inputs, call).terms


def labels_that_are_no_category_give_nan(backend: Backend, device: str) -> None:
    """In the total, in the supervised terms of every modality of the sample, and in the gradient."""
    available = available_tensor(device)
    for label in (4, -1, 255):
        leaf, labels = random_tensor(device, SHAPE).requires_grad_(), random_labels(device).long()
        labels[(1, *VOXEL)] = label
        total, terms = unchecked(leaf, labels, available, backend)
        cross_entropy, dice = terms[:-1].view(2, 4)
        assert total.isnan()
        assert (cross_entropy + dice).isnan().tolist() == [False, True, False, False]
        total.backward()
        assert leaf.grad is not None
        assert leaf.grad[1, 1].isnan().all()
        assert not leaf.grad[~available].any()


def results_may_be_changed_before_backward(backend: Backend, device: str) -> None:
    """As by adding up the total over steps, or the terms over processes, in place."""
    gradients = []
    for change in (False, True):
        leaf, labels = random_tensor(device, SHAPE).requires_grad_(), random_labels(device)
        terms = fused_gss_objective(leaf, labels, BRATS_2018, seed=3, return_stats=True, backend=backend)
        total = terms.total
        if change:
            assert terms.statistics is not None
            for own in (terms.cross_entropy, terms.dice, terms.gss, *terms.statistics):
                own.mul_(3)
            total += 1
        total.backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


# Decided within a kernel, or by how it is launched; each a few seconds in an interpreter of kernels.
KERNELS: tuple[Behaviour, ...] = (
    nan_in_a_masked_voxel_reaches_the_supervised_loss_alone,
    absent_modalities_do_not_matter,
    modality_that_no_sample_has_loses_nothing,
    huge_logits,
    impossible_category,
    second_backward_repeats_the_first,
)
EVERYWHERE: tuple[Behaviour, ...] = (
    *KERNELS,
    is_the_weighted_sum_of_the_separate_losses,
    nan_reaches_the_total_and_the_modality_s_own_terms,
    single_modality_is_supervised_but_does_not_vote,
    weight_of_zero_switches_a_loss_off,
    equal_logits,
    high_temperatures,
    full_available_changes_no_bit,
    label_dtype_and_layout_change_no_bit,
    runs_repeat_bit_for_bit,
    only_the_total_has_a_gradient,
    returned_form_changes_no_bit,
    gradient_only_where_asked,
    no_gradient_no_graph,
    arguments_stay_as_they_are,
    arguments_changed_before_backward_do_no_harm,
    results_may_be_changed_before_backward,
)
# The reference differentiates by autograd, twice if asked.
FUSED: tuple[Behaviour, ...] = (double_backward_is_an_error, logits_changed_before_backward_are_noticed)
# The `cpu` backend never gets such labels.
UNCHECKED: tuple[Behaviour, ...] = (labels_that_are_no_category_give_nan,)
