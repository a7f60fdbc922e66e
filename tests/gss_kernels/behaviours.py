"""What every backend has to do beyond agreeing with the oracle on ordinary logits; one function each.

Each takes the backend's name and the device, and asserts.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gss_kernels import BRATS_2015, BRATS_2018, CategoryGroups, fused_gss_loss, gss_soft_targets
from gss_kernels.settings import Backend
from tests.gss_kernels.cases import BRATS_4, random_logits
from tests.gss_kernels.oracle import Array, Settings, drawn_keep, gss

Behaviour = Callable[[Backend, str], None]
SHAPE = (2, 4, 4, 3, 5, 3)
VOXEL = (1, 2, 1)


def random_tensor(device: str, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Tensor:
    logits = random_logits(np.random.default_rng(seed), shape)
    return torch.from_numpy(logits).to(device, torch.float32)


def loss_and_gradient(logits: Tensor, backend: Backend, groups: CategoryGroups = BRATS_2018, **options: Any) -> Any:
    """Losses `[B, M]` and the gradient of their sum."""
    leaf = logits.clone().requires_grad_()
    options = {"mask_ratio": 0.0, "reduction": "none"} | options
    losses = fused_gss_loss(leaf, groups, **options, backend=backend)
    losses.sum().backward()
    return losses.detach(), leaf.grad


def agrees_with_oracle(logits: Array, backend: Backend, device: str, settings: Settings) -> None:
    """Loss, gradient and target on a problem of BraTS 2018's groups in float32, nothing masked."""
    leaf = torch.from_numpy(logits).to(device, torch.float32)
    losses, gradient = loss_and_gradient(leaf, backend, **dataclasses.asdict(settings))
    vote = {name: getattr(settings, name) for name in ("temperature", "leader_threshold", "member_threshold")}
    target = gss_soft_targets(leaf, BRATS_2018, **vote, backend=backend)
    answer = gss(logits, BRATS_4, settings)
    np.testing.assert_allclose(target.cpu().numpy(), answer.target, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses.cpu().numpy(), answer.losses, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient.cpu().numpy(), answer.gradient, rtol=1e-4, atol=1e-7)


def nan_in_a_kept_voxel_reaches_the_loss(backend: Backend, device: str) -> None:
    logits = random_tensor(device)
    logits[(0, 2, 1, *VOXEL)] = math.nan
    losses, _ = loss_and_gradient(logits, backend)
    clean, _ = loss_and_gradient(random_tensor(device), backend)
    assert losses[0, 2].isnan()
    assert torch.equal(losses[1], clean[1])
    assert fused_gss_loss(logits, BRATS_2018, mask_ratio=0.0, backend=backend).isnan()


def nan_in_every_category_reaches_the_loss(backend: Backend, device: str) -> None:
    logits = random_tensor(device)
    logits[(1, 3, slice(None), *VOXEL)] = math.nan
    assert loss_and_gradient(logits, backend)[0][1, 3].isnan()


def nan_in_a_masked_voxel_does_not(backend: Backend, device: str) -> None:
    logits = random_tensor(device)
    keep = torch.ones(2, 4, *SHAPE[3:], dtype=torch.bool, device=device)
    keep[(0, 2, *VOXEL)] = False
    clean, clean_gradient = loss_and_gradient(logits, backend, voxel_mask=keep)
    logits[(0, 2, slice(1, 3), *VOXEL)] = math.nan
    losses, gradient = loss_and_gradient(logits, backend, voxel_mask=keep)
    assert losses[0, 2] == clean[0, 2]
    elsewhere = torch.ones(SHAPE[3:], dtype=torch.bool, device=device)
    elsewhere[VOXEL] = False
    assert torch.equal(gradient[0, 2][:, elsewhere], clean_gradient[0, 2][:, elsewhere])
    if backend != "reference":  # autograd multiplies the mask's zero by the NaN
        assert not gradient[(0, 2, slice(None), *VOXEL)].any()


def finite_losses_have_finite_gradients(backend: Backend, device: str) -> None:
    """A NaN that is masked for its own modality alone: training looks at the loss to find bad numbers."""
    keep = torch.ones(2, 4, *SHAPE[3:], dtype=torch.bool, device=device)
    keep[(0, 0, *VOXEL)] = False
    for available in (None, torch.ones(2, 4, dtype=torch.bool, device=device)):
        for category in (0, slice(None)):
            logits = random_tensor(device)
            logits[(0, 0, category, *VOXEL)] = math.nan
            losses, gradient = loss_and_gradient(logits, backend, voxel_mask=keep, available=available)
            for modality in range(4):
                if losses[0, modality].isfinite():
                    assert gradient[0, modality].isfinite().all()
            target = gss_soft_targets(logits, BRATS_2018, available=available, backend=backend)
            assert target.isfinite().all()


def nan_masked_everywhere_changes_nothing(backend: Backend, device: str) -> None:
    logits = random_tensor(device)
    keep = torch.ones(2, 4, *SHAPE[3:], dtype=torch.bool, device=device)
    keep[(0, slice(None), *VOXEL)] = False
    clean, _ = loss_and_gradient(logits, backend, voxel_mask=keep)
    logits[(0, slice(None), slice(None), *VOXEL)] = math.nan
    assert torch.equal(loss_and_gradient(logits, backend, voxel_mask=keep)[0], clean)


def infinite_logit_is_not_a_silent_number(backend: Backend, device: str) -> None:
    logits = random_tensor(device)
    logits[(0, 1, 0, *VOXEL)] = math.inf
    assert loss_and_gradient(logits, backend)[0][0, 1].isnan()


def huge_logits(backend: Backend, device: str) -> None:
    signs = np.random.default_rng(1).choice([-1e4, 0.0, 1e4], size=(1, 4, 4, 40))
    for temperature in (8.0, 3.7):
        agrees_with_oracle(signs, backend, device, Settings(temperature=temperature))


def impossible_category(backend: Backend, device: str) -> None:
    logits = random_logits(np.random.default_rng(2), (1, 4, 4, 30)).astype(np.float32).astype(float)
    logits[:, :, 2, 10:] = -math.inf
    logits[:, 1, 0, 20:] = -math.inf
    agrees_with_oracle(logits, backend, device, Settings())


def vanishing_votes_leave_no_target(backend: Backend, device: str) -> None:
    """Modalities sure of different categories: all votes are minima, which underflow; the voxel still counts in N."""
    logits = random_logits(np.random.default_rng(3), (1, 4, 4, 10)).astype(np.float32).astype(float)
    logits[0, :, :, 4] = 1e4 * np.eye(4)[[1, 0, 2, 3]]
    settings = Settings(semantics="paper")
    agrees_with_oracle(logits, backend, device, settings)
    leaf = torch.from_numpy(logits).to(device, torch.float32)
    assert not gss_soft_targets(leaf, BRATS_2018, backend=backend)[..., 4].any()
    assert not loss_and_gradient(leaf, backend)[1][..., 4].any()


def nearly_vanishing_votes_stay_finite(backend: Backend, device: str) -> None:
    """The minima are denormal numbers, whose reciprocal overflows: the target may be lost, but not infinite."""
    gaps = torch.linspace(80, 105, 101)
    logits = torch.eye(4)[[1, 0, 2, 3]][None, :, :, None] * gaps
    logits = logits.to(device)
    losses, gradient = loss_and_gradient(logits, backend, temperature=1.0)
    target = gss_soft_targets(logits, BRATS_2018, temperature=1.0, backend=backend)
    assert losses.isfinite().all()
    assert gradient.isfinite().all()
    assert target.isfinite().all()
    assert (target <= 1).all()


def full_available_changes_no_bit(backend: Backend, device: str) -> None:
    for semantics in ("paper", "released"):
        for temperature in (8.0,) if semantics == "released" else (8.0, 3.7):
            options: dict[str, Any] = {"semantics": semantics, "temperature": temperature}
            # Several blocks of a kernel, and so many categories that registers are scarce.
            full = torch.ones(1, 4, dtype=torch.bool, device=device)
            logits = random_tensor(device, (1, 4, 5, 19, 43))
            loss_options = options | {"seed": 5, "mask_ratio": 0.2}
            for one, other in zip(
                loss_and_gradient(logits, backend, BRATS_2015, **loss_options),
                loss_and_gradient(logits, backend, BRATS_2015, available=full, **loss_options),
                strict=True,
            ):
                assert torch.equal(one, other)
            target = gss_soft_targets(logits, BRATS_2015, **options, backend=backend)
            assert torch.equal(target, gss_soft_targets(logits, BRATS_2015, available=full, **options, backend=backend))


def absent_modalities_get_exact_zeros(backend: Backend, device: str) -> None:
    available = torch.tensor([[True, False, True, True], [False, False, True, False]], device=device)
    logits = random_tensor(device)
    logits[~available] = math.nan
    losses, gradient = loss_and_gradient(logits, backend, available=available)
    target = gss_soft_targets(logits, BRATS_2018, available=available, backend=backend)
    learns = torch.tensor([[True, False, True, True], [False] * 4], device=device)
    assert not losses[~learns].any()
    assert not gradient[~learns].any()
    assert gradient[learns].any()
    assert not target[1].any()


def mask_is_the_specified_one(backend: Backend, device: str) -> None:
    """Read from the gradient, which vanishes exactly where a voxel is masked."""
    for M, seed in ((4, 7), (6, 2**64 - 3), (5, 0x0123_4567_89AB_CDEF)):
        groups = CategoryGroups(((0,), (1,), (0, 1)))
        logits = random_tensor(device, (2, M, 3, 5, 7)) / 4
        _, gradient = loss_and_gradient(logits, backend, groups, seed=seed, mask_ratio=0.37)
        keep = gradient.ne(0).any(dim=2).cpu().numpy()
        np.testing.assert_array_equal(keep, drawn_keep(seed, 0.37, 2, M, (5, 7)))


def seeds_repeat(backend: Backend, device: str) -> None:
    logits = random_tensor(device)
    call = functools.partial(loss_and_gradient, logits, backend, mask_ratio=0.5)
    for seed in (-3, 2**63 - 1, 2**63 + 11):
        signed = seed - 2**64 if seed >= 2**63 else seed
        tensor = torch.tensor(signed, dtype=torch.int64, device=device)
        assert torch.equal(call(seed=seed)[1], call(seed=tensor)[1])
    assert not torch.equal(call(seed=1)[1], call(seed=1 + 2**32)[1])


def manual_seed_repeats_a_run(backend: Backend, device: str) -> None:
    logits = random_tensor(device)

    def two_draws() -> tuple[Tensor, Tensor]:
        torch.manual_seed(11)
        return tuple(loss_and_gradient(logits, backend, mask_ratio=0.5)[1] for _ in range(2))  # type: ignore[return-value]

    first, again = two_draws(), two_draws()
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(*first)


def mask_ratio_zero_keeps_all(backend: Backend, device: str) -> None:
    logits = random_tensor(device)
    kept = torch.ones(2, 4, *SHAPE[3:], dtype=torch.bool, device=device)
    by_ratio = loss_and_gradient(logits, backend, mask_ratio=0.0, seed=1)
    by_mask = loss_and_gradient(logits, backend, voxel_mask=kept)
    assert all(torch.equal(one, other) for one, other in zip(by_ratio, by_mask, strict=True))


def mask_ratio_one_leaves_zero(backend: Backend, device: str) -> None:
    losses, gradient = loss_and_gradient(random_tensor(device), backend, mask_ratio=1.0, seed=1)
    assert not losses.any()
    assert not gradient.any()


def tiny_mask_ratio(backend: Backend, device: str) -> None:
    """A few words of 2**32 mask: numbers that a compiler treats specially."""
    logits = random_tensor(device)
    want = loss_and_gradient(logits, backend, mask_ratio=0.0)
    for words in (0.5, 2):
        got = loss_and_gradient(logits, backend, mask_ratio=words / 2**32, seed=1)
        assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))


def second_backward_repeats_the_first(backend: Backend, device: str) -> None:
    leaf = random_tensor(device).requires_grad_()
    losses = fused_gss_loss(leaf, BRATS_2018, seed=3, reduction="none", backend=backend)
    upstream = torch.arange(8.0, device=device).reshape(2, 4)
    (first,) = torch.autograd.grad(losses, leaf, upstream, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(losses, leaf, upstream, retain_graph=True)
    (doubled,) = torch.autograd.grad(losses, leaf, 2 * upstream)
    torch.testing.assert_close(second, kept, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(doubled, 2 * kept, rtol=1e-5, atol=1e-8)
    assert torch.equal(first, kept)


def upstream_of_any_layout(backend: Backend, device: str) -> None:
    logits = random_tensor(device)
    gradients = []
    for upstream in (torch.arange(8.0).reshape(2, 4), torch.arange(8.0).reshape(2, 4).t().contiguous().t()):
        leaf = logits.clone().requires_grad_()
        fused_gss_loss(leaf, BRATS_2018, seed=3, reduction="none", backend=backend).backward(upstream.to(device))
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def double_backward_is_an_error(backend: Backend, device: str) -> None:
    """Also where the penalty on the gradient is one term of several, and could go missing unnoticed."""
    leaf = random_tensor(device).requires_grad_()
    loss = fused_gss_loss(leaf, BRATS_2018, seed=3, backend=backend)

    def penalise_gradient() -> None:
        (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
        (gradient.square().sum() + leaf.square().sum()).backward()

    with pytest.raises(RuntimeError, match=r"once|twice|second|double"):
        penalise_gradient()


def logits_changed_before_backward_are_noticed(backend: Backend, device: str) -> None:
    leaf = random_tensor(device).requires_grad_()
    logits = leaf * 1
    loss = fused_gss_loss(logits, BRATS_2018, seed=3, backend=backend)
    with torch.no_grad():
        logits.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def arguments_changed_before_backward_do_no_harm(backend: Backend, device: str) -> None:
    """The gradient is that of the loss that was returned, or an error; as with a seed counted up after each step."""
    logits = random_tensor(device, (1, 4, 4, 31)).bfloat16()
    changes: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {
        "seed": (torch.tensor(3, device=device), lambda seed: seed.add_(1)),
        "voxel_mask": (torch.arange(124, device=device).reshape(1, 4, 31) % 3 > 0, Tensor.logical_not_),
        "available": (torch.tensor([[True, True, False, True]], device=device), Tensor.logical_not_),
    }
    for name, (argument, change) in changes.items():
        mask_ratio = 0.5 if name == "seed" else 0.0
        _, want = loss_and_gradient(logits, backend, mask_ratio=mask_ratio, **{name: argument.clone()})
        leaf = logits.clone().requires_grad_()
        losses = fused_gss_loss(
            leaf, BRATS_2018, mask_ratio=mask_ratio, reduction="none", backend=backend, **{name: argument}
        )
        change(argument)
        try:
            losses.sum().backward()
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
        assert leaf.grad is None or torch.equal(leaf.grad, want), name


def gradient_only_where_asked(backend: Backend, device: str) -> None:
    tensors = list(random_tensor(device).unbind(1))
    want = loss_and_gradient(random_tensor(device), backend, seed=3, mask_ratio=0.2)[1]
    tensors[2] = tensors[2].clone().requires_grad_()
    fused_gss_loss(tensors, BRATS_2018, seed=3, reduction="none", backend=backend).sum().backward()
    assert [tensor.grad is not None for tensor in tensors] == [False, False, True, False]
    torch.testing.assert_close(tensors[2].grad, want[:, 2], rtol=1e-5, atol=1e-8)


def no_gradient_no_graph(backend: Backend, device: str) -> None:
    logits = random_tensor(device)
    want, _ = loss_and_gradient(logits, backend, seed=3)
    got = fused_gss_loss(logits, BRATS_2018, mask_ratio=0.0, seed=3, reduction="none", backend=backend)
    assert not got.requires_grad
    assert torch.equal(got, want)


def memory_formats_of_modalities_may_differ(backend: Backend, device: str) -> None:
    logits = random_tensor(device)
    want, want_gradient = loss_and_gradient(logits, backend, seed=3, mask_ratio=0.2)
    formats = (torch.contiguous_format, torch.channels_last_3d) * 2
    tensors = [
        own.clone(memory_format=kind).requires_grad_() for own, kind in zip(logits.unbind(1), formats, strict=True)
    ]
    losses = fused_gss_loss(tensors, BRATS_2018, seed=3, reduction="none", backend=backend)
    gradients = torch.autograd.grad(losses.sum(), tensors)
    torch.testing.assert_close(losses.detach(), want)
    torch.testing.assert_close(torch.stack(gradients, dim=1), want_gradient, rtol=1e-5, atol=1e-8)


def inputs_stay_as_they_are(backend: Backend, device: str) -> None:
    logits = random_tensor(device)
    before = logits.clone()
    loss_and_gradient(logits, backend, seed=3, mask_ratio=0.2)
    leaf = logits.requires_grad_()
    fused_gss_loss(leaf, BRATS_2018, seed=3, backend=backend).backward()
    assert torch.equal(leaf.detach(), before)


# Decided within a kernel, or by how it is launched.
KERNELS: tuple[Behaviour, ...] = (
    nan_in_a_kept_voxel_reaches_the_loss,
    nan_in_a_masked_voxel_does_not,
    nan_masked_everywhere_changes_nothing,
    infinite_logit_is_not_a_silent_number,
    huge_logits,
    impossible_category,
    vanishing_votes_leave_no_target,
    nearly_vanishing_votes_stay_finite,
    full_available_changes_no_bit,
    absent_modalities_get_exact_zeros,
    mask_is_the_specified_one,
    mask_ratio_one_leaves_zero,
    arguments_changed_before_backward_do_no_harm,
    tiny_mask_ratio,
    second_backward_repeats_the_first,
    upstream_of_any_layout,
    gradient_only_where_asked,
    memory_formats_of_modalities_may_differ,
)
EVERYWHERE: tuple[Behaviour, ...] = (
    *KERNELS,
    nan_in_every_category_reaches_the_loss,
    seeds_repeat,
    manual_seed_repeats_a_run,
    mask_ratio_zero_keeps_all,
    no_gradient_no_graph,
    inputs_stay_as_they_are,
)
# The reference differentiates by autograd, twice if asked.
FUSED: tuple[Behaviour, ...] = (
    double_backward_is_an_error,
    logits_changed_before_backward_are_noticed,
    finite_losses_have_finite_gradients,
)
