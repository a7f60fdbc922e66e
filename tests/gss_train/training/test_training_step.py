"""The whole training step on the CPU; `tests/gpu/test_step.py` looks at the same on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.gpu.steps import Training, begin_training, check_that_a_bad_image_changes_nothing


def begin(network: str, **options: object) -> Training:
    return begin_training(network, "cpu", edge=32 if network == "mmformer" else 16, **options)


@pytest.mark.parametrize("network", ["rfnet", "uhved"])
def test_a_bad_image_changes_nothing(network: str) -> None:
    check_that_a_bad_image_changes_nothing(begin(network))


def test_a_bad_image_changes_nothing_with_loss_scaling() -> None:
    training = begin("rfnet", clip_gradient=1.0)
    training.update.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    check_that_a_bad_image_changes_nothing(training)


@pytest.mark.parametrize("network", ["mmformer", "uhved"])
def test_what_a_network_draws_depends_on_the_step_alone(network: str) -> None:
    """Dropout and latent variables too, whatever was drawn before."""
    results = []
    for draws in (0, 5):
        training = begin(network)
        torch.randn(draws)
        results.append(training.step().scalars)
    assert torch.equal(*results)


def test_bfloat16_is_close_to_float32() -> None:
    losses = [begin("rfnet", precision=precision).step().scalars[0].item() for precision in ("float32", "bfloat16")]
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)


def test_a_compiled_network_is_the_one_that_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks' own tests compile them."""
    calls: list[int] = []

    def translate(network: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: torch.Tensor) -> Any:
            calls.append(len(inputs))
            return network(*inputs)

        return call

    monkeypatch.setattr("torch.compile", translate)
    results = [begin("uhved", compiled=compiled).step().scalars for compiled in (False, True)]
    assert calls == [3]
    assert torch.equal(*results)
