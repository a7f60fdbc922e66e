"""The engine's whole training step on a GPU."""

from __future__ import annotations

import pytest
import torch

from gss_train.config import ComputedPrecision
from gss_train.inference import arithmetic
from gss_train.models import NETWORKS
from tests.gpu.steps import begin_training, check_that_a_bad_image_changes_nothing, loss_of
from tests.gpu.test_launches import assert_host_does_not_wait


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("network", NETWORKS)
def test_host_never_waits_for_a_step(network: str, precision: ComputedPrecision) -> None:
    training = begin_training(network, "cuda", precision=precision, clip_gradient=1.0)
    assert_host_does_not_wait(training.step)
    assert training.steps == 2


@pytest.mark.parametrize("network", NETWORKS)
def test_host_never_waits_for_a_step_with_checkpointing(network: str) -> None:
    training = begin_training(network, "cuda", precision="bfloat16", checkpointing=True)
    assert_host_does_not_wait(training.step)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_bad_image_changes_nothing(network: str) -> None:
    check_that_a_bad_image_changes_nothing(begin_training(network, "cuda"))


def test_a_bad_image_changes_nothing_with_loss_scaling() -> None:
    training = begin_training("rfnet", "cuda", precision="float16")
    training.update.scaler = torch.amp.GradScaler("cuda", init_scale=1.0)  # of which nothing overflows
    check_that_a_bad_image_changes_nothing(training)


@pytest.mark.parametrize("network", NETWORKS)
def test_loss_is_that_of_the_cpu(network: str) -> None:
    losses = []
    with arithmetic("float32"):
        for device in ("cpu", "cuda"):
            training = begin_training(network, device, noise=False)
            losses.append([loss_of(training.step()) for _ in range(2)])
    # The second one has what the first update did as well.
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
