"""What every backend of the supervised loss has to do beyond agreeing with the oracle; one function each.

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

from gss_kernels import fused_segmentation_loss
from gss_kernels.settings import Backend, InputKind
from tests.gss_kernels.segmentation_cases import random_prediction
from tests.gss_kernels.segmentation_oracle import Array, segmentation

Behaviour = Callable[[Backend, str], None]
SHAPE = (3, 4, 3, 5)
KINDS: tuple[InputKind, ...] = ("logits", "probabilities")


def random_input(device: str, input_kind: InputKind = "logits", shape: tuple[int, ...] = SHAPE) -> Tensor:
    prediction = random_prediction(np.random.default_rng(0), shape, input_kind)
    return torch.from_numpy(prediction).to(device, torch.float32)


def random_labels(device: str, shape: tuple[int, ...] = SHAPE) -> Tensor:
    labels = np.random.default_rng(1).integers(0, shape[1], (shape[0], *shape[2:]))
    return torch.from_numpy(labels).to(device, torch.uint8)


def terms_and_gradient(prediction: Tensor, labels: Tensor, backend: Backend, **options: Any) -> tuple[Tensor, ...]:
    """Cross-entropy, Dice, and the gradient of their sum."""
    leaf = prediction.clone().requires_grad_()
    terms = fused_segmentation_loss(leaf, labels, **options, backend=backend)
    (terms.cross_entropy + terms.dice).backward()
    assert leaf.grad is not None
    return terms.cross_entropy.detach(), terms.dice.detach(), leaf.grad


def agrees_with_oracle(
    prediction: Array, labels: Tensor, backend: Backend, device: str, input_kind: InputKind = "logits"
) -> None:
    """In float32, in which the prediction has to be exact."""
    tensor = torch.from_numpy(prediction).to(device, torch.float32)
    got = terms_and_gradient(tensor, labels.to(device), backend, input_kind=input_kind)
    answer = segmentation(prediction, labels.cpu().long().numpy(), input_kind)
    want = (answer.cross_entropy, answer.dice, answer.gradient_under(1, 1))
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one.cpu().numpy(), other, rtol=1e-4, atol=1e-6)


def nan_reaches_a_term(backend: Backend, device: str) -> None:
    """In the category that the voxel has, and in one that it does not have."""
    labels = random_labels(device)
    for input_kind in KINDS:
        for category in (int(labels[1, 2, 3]), (int(labels[1, 2, 3]) + 1) % 4):
            prediction = random_input(device, input_kind)
            prediction[1, category, 2, 3] = math.nan
            terms = fused_segmentation_loss(prediction, labels, input_kind=input_kind, backend=backend)
            assert (terms.cross_entropy + terms.dice).isnan()


def nan_in_every_category_reaches_both_terms(backend: Backend, device: str) -> None:
    for input_kind in KINDS:
        prediction = random_input(device, input_kind)
        prediction[0, :, 0, 1] = math.nan
        terms = fused_segmentation_loss(prediction, random_labels(device), input_kind=input_kind, backend=backend)
        assert all(term.isnan() for term in terms)


def infinite_logit_is_not_a_silent_number(backend: Backend, device: str) -> None:
    prediction = random_input(device)
    prediction[1, 0, 2, 3] = math.inf
    assert sum(fused_segmentation_loss(prediction, random_labels(device), backend=backend)).isnan()


def huge_logits(backend: Backend, device: str) -> None:
    signs = np.random.default_rng(1).choice([-1e4, 0.0, 1e4], size=(2, 4, 40))
    agrees_with_oracle(signs, random_labels("cpu", signs.shape), backend, device)


def equal_logits(backend: Backend, device: str) -> None:
    agrees_with_oracle(np.full((2, 5, 7), 3.0), random_labels("cpu", (2, 5, 7)), backend, device)


def impossible_category(backend: Backend, device: str) -> None:
    """Of probability 0 everywhere, also where it is the label."""
    logits = random_prediction(np.random.default_rng(2), (2, 4, 30), "logits").astype(np.float32).astype(float)
    logits[:, 2] = -math.inf
    agrees_with_oracle(logits, random_labels("cpu", logits.shape), backend, device)


def absent_category(backend: Backend, device: str) -> None:
    """A label that no voxel of one sample has, and one that no voxel has at all."""
    labels = random_labels("cpu", (2, 5, 30)).clamp(max=3)
    labels[1][labels[1] == 0] = 1
    for input_kind in KINDS:
        prediction = (
            random_prediction(np.random.default_rng(3), (2, 5, 30), input_kind).astype(np.float32).astype(float)
        )
        agrees_with_oracle(prediction, labels, backend, device, input_kind)


def category_that_is_neither_predicted_nor_labelled(backend: Backend, device: str) -> None:
    """Its overlap is 0 divided by the smoothing alone."""
    prediction = np.zeros((1, 3, 7))
    prediction[:, 0] = 0.25
    prediction[:, 1] = 0.75
    labels = torch.tensor([[0, 1, 1, 0, 1, 0, 0]], dtype=torch.uint8)
    tensor = torch.from_numpy(prediction).to(device, torch.float32)
    got = terms_and_gradient(tensor, labels.to(device), backend, input_kind="probabilities")
    answer = segmentation(prediction, labels.long().numpy(), "probabilities")
    np.testing.assert_allclose(got[1].item(), answer.dice, rtol=1e-5)
    np.testing.assert_allclose(got[2][:, :2].cpu().numpy(), answer.gradient_under(1, 1)[:, :2], rtol=1e-4)
    assert not got[2][:, 2].any()


def constant_labels_have_no_cross_entropy(backend: Backend, device: str) -> None:
    """The only category of a sample has weight 0 in it."""
    labels = torch.full((2, 9), 2, dtype=torch.uint8)
    logits = random_prediction(np.random.default_rng(4), (2, 4, 9), "logits").astype(np.float32).astype(float)
    agrees_with_oracle(logits, labels, backend, device)
    tensor = torch.from_numpy(logits).to(device, torch.float32)
    assert fused_segmentation_loss(tensor, labels.to(device), backend=backend).cross_entropy == 0


def clipped_probabilities_have_no_cross_entropy_gradient(backend: Backend, device: str) -> None:
    own = torch.tensor([0.0, 0.004, 0.006, 0.5, 1.0, 1.1], device=device)
    leaf = torch.stack((own, own.flip(0)))[None].requires_grad_()
    labels = torch.tensor([[0, 0, 0, 0, 0, 0]], device=device)
    labels[0, 3] = 1
    terms = fused_segmentation_loss(leaf, labels, input_kind="probabilities", backend=backend)
    (gradient,) = torch.autograd.grad(terms.cross_entropy, leaf)
    want = torch.zeros(1, 2, 6, device=device)
    for voxel in (2, 4):
        want[0, 0, voxel] = -(1 - 5 / 6) / (6 * own[voxel])
    want[0, 1, 3] = -(1 - 1 / 6) / (6 * 0.006)
    torch.testing.assert_close(gradient, want, rtol=1e-5, atol=0)


def each_term_alone(backend: Backend, device: str) -> None:
    """One term's gradient has nothing of the other's."""
    labels = random_labels(device)
    for input_kind in KINDS:
        prediction = random_input(device, input_kind)
        answer = segmentation(prediction.double().cpu().numpy(), labels.cpu().long().numpy(), input_kind)
        leaf = prediction.requires_grad_()
        terms = fused_segmentation_loss(leaf, labels, input_kind=input_kind, backend=backend)
        for index, want in enumerate((answer.cross_entropy_gradient, answer.dice_gradient)):
            (gradient,) = torch.autograd.grad(terms[index], leaf, retain_graph=True)
            np.testing.assert_allclose(gradient.cpu().numpy(), want, rtol=1e-4, atol=1e-7)


def unavailable_samples_do_not_exist(backend: Backend, device: str) -> None:
    available = torch.tensor([True, False, True], device=device)
    for input_kind in KINDS:
        prediction, labels = random_input(device, input_kind), random_labels(device)
        want = terms_and_gradient(prediction[available], labels[available], backend, input_kind=input_kind)
        prediction[1, 1:] = math.nan
        prediction[1, 0] = math.inf
        labels[1] = 255
        got = terms_and_gradient(prediction, labels, backend, input_kind=input_kind, available=available)
        for one, other in zip((*got[:2], got[2][available]), want, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)
        assert not got[2][1].any()


def no_available_sample_gives_zeros(backend: Backend, device: str) -> None:
    available = torch.zeros(3, dtype=torch.bool, device=device)
    for input_kind in KINDS:
        prediction = torch.full(SHAPE, math.nan, device=device)
        labels = torch.full((3, *SHAPE[2:]), -1, device=device)
        for value in terms_and_gradient(prediction, labels, backend, input_kind=input_kind, available=available):
            assert not value.any()


def full_available_changes_no_bit(backend: Backend, device: str) -> None:
    call = functools.partial(terms_and_gradient, random_input(device), random_labels(device), backend)
    full = torch.ones(3, dtype=torch.bool, device=device)
    assert all(torch.equal(one, other) for one, other in zip(call(), call(available=full), strict=True))


def label_dtype_and_layout_change_no_bit(backend: Backend, device: str) -> None:
    prediction, labels = random_input(device), random_labels(device)
    want = terms_and_gradient(prediction, labels, backend)
    wide = labels.long().repeat_interleave(2, dim=1)[:, ::2]
    integers = [labels.to(dtype) for dtype in (torch.int8, torch.int16, torch.int32, torch.int64)]
    rare = [labels.to(dtype) for dtype in (torch.uint16, torch.uint32, torch.uint64)]
    for other in (*integers, *rare, wide, labels.transpose(1, 2).contiguous().transpose(1, 2)):
        got = terms_and_gradient(prediction, other, backend)
        assert all(torch.equal(one, another) for one, another in zip(got, want, strict=True))


def runs_repeat_bit_for_bit(backend: Backend, device: str) -> None:
    runs = [terms_and_gradient(random_input(device), random_labels(device), backend) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def second_backward_repeats_the_first(backend: Backend, device: str) -> None:
    for input_kind in KINDS:
        leaf = random_input(device, input_kind).requires_grad_()
        total = sum(fused_segmentation_loss(leaf, random_labels(device), input_kind=input_kind, backend=backend))
        (first,) = torch.autograd.grad(total, leaf, retain_graph=True)
        kept = first.clone()
        (second,) = torch.autograd.grad(total, leaf, retain_graph=True)
        (doubled,) = torch.autograd.grad(2 * total, leaf)
        torch.testing.assert_close(second, kept, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(doubled, 2 * kept, rtol=1e-5, atol=1e-8)
        assert torch.equal(first, kept)


def arguments_changed_before_backward_do_no_harm(backend: Backend, device: str) -> None:
    """The gradient is that of the loss that was returned, or an error."""
    changes: tuple[tuple[str, Callable[[Tensor], object]], ...] = (
        ("labels", lambda tensor: tensor.fill_(0)),
        ("available", Tensor.logical_not_),
    )
    for name, change in changes:
        arguments = {"labels": random_labels(device), "available": torch.tensor([True, False, True], device=device)}
        _, _, want = terms_and_gradient(random_input(device), backend=backend, **arguments)
        leaf = random_input(device).requires_grad_()
        total = sum(fused_segmentation_loss(leaf, **arguments, backend=backend))
        change(arguments[name])
        try:
            total.backward()
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
        assert leaf.grad is None or torch.equal(leaf.grad, want), name


def no_gradient_no_graph(backend: Backend, device: str) -> None:
    prediction, labels = random_input(device), random_labels(device)
    want = terms_and_gradient(prediction, labels, backend)[:2]
    got = fused_segmentation_loss(prediction, labels, backend=backend)
    assert not any(term.requires_grad for term in got)
    assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))


def arguments_stay_as_they_are(backend: Backend, device: str) -> None:
    for input_kind in KINDS:
        leaf, labels = random_input(device, input_kind).requires_grad_(), random_labels(device)
        sum(fused_segmentation_loss(leaf, labels, input_kind=input_kind, backend=backend)).backward()
        assert torch.equal(leaf.detach(), random_input(device, input_kind))
        assert torch.equal(labels, random_labels(device))


def double_backward_is_an_error(backend: Backend, device: str) -> None:
    """Also where the penalty on the gradient is one term of several, and could go missing unnoticed."""
    leaf = random_input(device).requires_grad_()
    total = sum(fused_segmentation_loss(leaf, random_labels(device), backend=backend))

    def penalise_gradient() -> None:
        (gradient,) = torch.autograd.grad(total, leaf, create_graph=True)
        (gradient.square().sum() + leaf.square().sum()).backward()

    with pytest.raises(RuntimeError, match=r"once|twice|second|double"):
        penalise_gradient()


def input_changed_before_backward_is_noticed(backend: Backend, device: str) -> None:
    for input_kind in KINDS:
        leaf = random_input(device, input_kind).requires_grad_()
        prediction = leaf * 1
        total = sum(fused_segmentation_loss(prediction, random_labels(device), input_kind=input_kind, backend=backend))
        with torch.no_grad():
            prediction.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            total.backward()


# Decided within a kernel, or by how it is launched.
KERNELS: tuple[Behaviour, ...] = (
    nan_reaches_a_term,
    infinite_logit_is_not_a_silent_number,
    huge_logits,
    impossible_category,
    absent_category,
    category_that_is_neither_predicted_nor_labelled,
    constant_labels_have_no_cross_entropy,
    clipped_probabilities_have_no_cross_entropy_gradient,
    each_term_alone,
    unavailable_samples_do_not_exist,
    no_available_sample_gives_zeros,
    full_available_changes_no_bit,
    label_dtype_and_layout_change_no_bit,
    second_backward_repeats_the_first,
    arguments_changed_before_backward_do_no_harm,
)
EVERYWHERE: tuple[Behaviour, ...] = (
    *KERNELS,
    nan_in_every_category_reaches_both_terms,
    equal_logits,
    runs_repeat_bit_for_bit,
    no_gradient_no_graph,
    arguments_stay_as_they_are,
)
# The reference differentiates by autograd, twice if asked, and keeps what it needs itself.
FUSED: tuple[Behaviour, ...] = (double_backward_is_an_error, input_changed_before_backward_is_noticed)
