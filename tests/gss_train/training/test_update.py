from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from gss_train.training.update import AdamSettings, GuardedUpdate, UpdateReport

CPU = torch.device("cpu")
FINITE = torch.tensor(True)
SETTINGS = AdamSettings(0.01, 1e-2)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))


def data(step: int) -> torch.Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(step))


def guarded(module: nn.Module, **options: object) -> GuardedUpdate:
    return GuardedUpdate(module.parameters(), SETTINGS, CPU, **options)


def take(module: nn.Module, update: GuardedUpdate, step: int, factor: float = 1.0) -> UpdateReport:
    update.forget_gradients()
    loss = factor * module(data(step)).square().mean()
    update.backward(loss)
    return update.step(loss.isfinite())


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def test_finite_steps_are_those_of_adam() -> None:
    module, plain = network(), network()
    update = guarded(module)
    adam = torch.optim.Adam(plain.parameters(), lr=0.01, weight_decay=1e-2, amsgrad=True, foreach=False)
    for step in range(5):
        report = take(module, update, step)
        adam.zero_grad()
        plain(data(step)).square().mean().backward()
        norm = math.sqrt(sum(float(parameter.grad.square().sum()) for parameter in plain.parameters()))
        adam.step()
        assert float(report.gradient_norm) == pytest.approx(norm, rel=1e-5)
        assert (float(report.skipped), float(report.bad)) == (0, 0)
    for own, expected in zip(weights(module), weights(plain), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kernels_only", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_steps_are_those_of_the_adam_that_was_asked_for(amsgrad: bool, kernels_only: bool) -> None:
    """The gradient falls after the first steps: there the largest second moment is not the last one."""
    module, plain = network(), network()
    update = GuardedUpdate(module.parameters(), AdamSettings(0.01, 0.3, kernels_only, amsgrad), CPU)
    adam = torch.optim.Adam(plain.parameters(), lr=0.01, amsgrad=amsgrad, betas=(0.5, 0.6))
    update.optimiser.param_groups[0]["betas"] = update.optimiser.param_groups[-1]["betas"] = (0.5, 0.6)
    for step in range(5):
        factor = 1.0 if step < 2 else 0.01
        take(module, update, step, factor)
        adam.zero_grad()
        (factor * plain(data(step)).square().mean()).backward()
        for name, parameter in plain.named_parameters():
            if name.endswith("weight") or not kernels_only:
                parameter.grad += 0.3 * parameter.detach()
        adam.step()
    for own, expected in zip(weights(module), weights(plain), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_step_with_bad_numbers_leaves_no_trace(bad: float) -> None:
    module, undisturbed = network(), network()
    update, other = guarded(module), guarded(undisturbed)
    for step in range(3):
        take(module, update, step)
        take(undisturbed, other, step)
        before = weights(module)
        report = take(module, update, step, factor=bad)
        assert (float(report.skipped), float(report.bad)) == (1, 1)
        assert all(map(torch.equal, before, weights(module)))
    # Moments and the count of steps are untouched as well, or the next steps would differ.
    assert all(map(torch.equal, weights(module), weights(undisturbed)))


def test_a_bad_loss_with_a_finite_gradient_is_skipped_too() -> None:
    module = network()
    update = guarded(module)
    before = weights(module)
    update.forget_gradients()
    update.backward(module(data(0)).square().mean())
    report = update.step(torch.tensor(False))
    assert math.isfinite(float(report.gradient_norm))
    assert (float(report.skipped), float(report.bad)) == (1, 1)
    assert all(map(torch.equal, before, weights(module)))


def test_one_bad_gradient_among_many_is_enough() -> None:
    module = network()
    update = guarded(module)
    before = weights(module)
    update.forget_gradients()
    update.backward(module(data(0)).square().mean())
    next(module.parameters()).grad[3, 2] = math.nan
    assert float(update.step(FINITE).skipped) == 1
    assert all(map(torch.equal, before, weights(module)))


@pytest.mark.parametrize("largest", [0.01, 1e6])
def test_clipping_scales_the_whole_gradient(largest: float) -> None:
    module, plain = network(), network()
    update = guarded(module, clip_gradient=largest)
    adam = torch.optim.Adam(plain.parameters(), lr=0.01, weight_decay=1e-2, amsgrad=True)
    for step in range(3):
        report = take(module, update, step)
        adam.zero_grad()
        plain(data(step)).square().mean().backward()
        norm = math.sqrt(sum(float(parameter.grad.square().sum()) for parameter in plain.parameters()))
        for parameter in plain.parameters():
            parameter.grad *= min(1.0, largest / norm)
        adam.step()
        assert float(report.gradient_norm) == pytest.approx(norm, rel=1e-4)
    for own, expected in zip(weights(module), weights(plain), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)


def test_a_loss_scale_that_is_too_large_halves_and_is_not_bad() -> None:
    module = network()
    update = guarded(module, scale_loss=True)
    scale = update.scaler.get_scale()
    before = weights(module)
    report = take(module, update, 0, factor=1e36)
    assert (float(report.skipped), float(report.bad)) == (1, 0)
    assert update.scaler.get_scale() == scale / 2
    assert all(map(torch.equal, before, weights(module)))
    assert float(take(module, update, 1, factor=math.nan).bad) == 1


def test_scaled_steps_are_those_of_adam() -> None:
    module, plain = network(), network()
    update, other = guarded(module, scale_loss=True), guarded(plain)
    for step in range(3):
        scaled, unscaled = take(module, update, step), take(plain, other, step)
        # A power of two: nothing is rounded.
        assert torch.equal(scaled.gradient_norm, unscaled.gradient_norm)
    assert all(map(torch.equal, weights(module), weights(plain)))


@pytest.mark.parametrize("scale_loss", [False, True])
def test_it_goes_on_to_the_bit_from_its_state(scale_loss: bool) -> None:
    module = network()
    update = guarded(module, scale_loss=scale_loss)
    for step in range(3):
        take(module, update, step)
    other = copy.deepcopy(module)
    again = guarded(other, scale_loss=scale_loss)
    again.load_state_dict(copy.deepcopy(update.state_dict()))
    again.learning_rate = update.learning_rate = 0.003
    for step in range(3, 6):
        take(module, update, step)
        take(other, again, step)
    assert all(map(torch.equal, weights(module), weights(other)))
    assert again.learning_rate == 0.003


def test_it_goes_on_in_another_memory_layout() -> None:
    """The optimiser goes through the memory of weights and moments as it lies."""
    torch.manual_seed(0)
    layouts = (torch.contiguous_format, torch.channels_last_3d)
    x = torch.randn(2, 3, 4, 4, 4)
    ends = []
    for first in layouts:
        for then in layouts:
            torch.manual_seed(1)
            convolution = nn.Conv3d(3, 5, 3).to(memory_format=first)
            update = guarded(convolution)
            for step in range(4):
                if step == 2:
                    state = copy.deepcopy(update.state_dict())
                    convolution = convolution.to(memory_format=then)
                    update = guarded(convolution)
                    update.load_state_dict(state)
                update.forget_gradients()
                loss = convolution(x).square().mean()
                update.backward(loss)
                update.step(loss.isfinite())
            ends.append(convolution.weight.detach().contiguous())
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-4, atol=1e-5)
