from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from benchmarks.memory import peak_extra_bytes
from benchmarks.network_steps import StepSettings, build, training_step
from gss_train.common.errors import UserError
from gss_train.models.registry import NETWORKS
from gss_train.training.memory import MEASURED, StepSize, describe_need, full_memory_explained

RFNET = StepSize("rfnet", 16, 9_000_000, 80**3, 2, activation_checkpointing=False, in_16_bits=False)


@pytest.mark.parametrize(
    ("network", "edge", "crops", "width"), [("rfnet", 24, 2, 4), ("uhved", 16, 2, 4), ("robustseg", 16, 1, 4)]
)
@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_a_step_takes_about_what_is_expected(
    network: str, edge: int, crops: int, width: int, activation_checkpointing: bool
) -> None:
    """At no more than half of the published width, where nothing was measured for the table."""
    variant = "lean, checkpointing" if activation_checkpointing else "lean"
    settings = StepSettings(network, variant, edge, width, categories=4, batch=crops)
    parameters = sum(parameter.numel() for parameter in build(settings).parameters())
    step = training_step(settings, torch.device("cpu"))
    step()
    measured = peak_extra_bytes(step, torch.device("cpu")) + 20 * parameters
    size = StepSize(network, width, parameters, edge**3, crops, activation_checkpointing, in_16_bits=False)
    assert size.expected_bytes == pytest.approx(measured, rel=0.35)


def test_every_network_has_been_measured_in_every_way() -> None:
    expected = {(name, checkpointing, short) for name in NETWORKS for checkpointing in (0, 1) for short in (0, 1)}
    assert set(MEASURED) == expected


def test_it_is_said_in_one_line() -> None:
    assert describe_need(RFNET) == "Expected to need: 6 GB of tensors, by measurements of rfnet"
    assert "\n" not in describe_need(RFNET)


def test_a_full_memory_names_the_three_settings_that_help_most() -> None:
    with pytest.raises(UserError, match=r"memory is full") as caught, full_memory_explained(RFNET):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand much more")
    said = str(caught.value)
    shares = [float(share) for share in re.findall(r"(0\.\d+)x", said)]
    assert len(shares) == 3
    assert shares == sorted(shares)
    assert "--activation-checkpointing: 0.43x of the memory" in said
    assert "Tried to allocate 2.00 GiB" in said
    assert "\n" not in said


def test_settings_that_are_on_already_are_not_named() -> None:
    size = replace(RFNET, crops=1, activation_checkpointing=True)
    said = " ".join(size.remedies())
    assert "--activation-checkpointing" not in said
    assert "--accumulate" not in said
    assert "--precision bfloat16" in said
    assert "--crop-size" in said


def test_the_processors_allocator_is_understood_too() -> None:
    with pytest.raises(UserError, match="memory is full"), full_memory_explained(RFNET):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), full_memory_explained(RFNET):
        raise RuntimeError("shapes do not match")
