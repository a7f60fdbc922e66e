"""How much memory a training takes: what it has taken, what it is expected to take, and what takes less."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from gss_train.common import UserError
from gss_train.models import NETWORKS
from gss_train.training.plan import TrainingPlan

# Float32: weight, gradient and Adam's three moments (amsgrad).
_BYTES_PER_PARAMETER = 20
_BYTES_PER_AVERAGED_PARAMETER = 4


class StepMemory(NamedTuple):
    """What a training step allocates besides parameters, gradients and moments.

    Attributes:
        bytes_per_voxel: of a crop.
        fixed_mb: besides, in 1e6 bytes.
    """

    bytes_per_voxel: int
    fixed_mb: float


# By network, activation checkpointing and 16 bits: tensors allocated at most in a step with GSS of one crop, published
# width, C = 4, on a CPU, a line through crops of 32^3 and 48^3 (mmFormer: 48^3 and 64^3);
# `benchmarks.memory.peak_extra_bytes` of `benchmarks.network_steps.training_step`.
MEASURED = {
    ("rfnet", False, False): StepMemory(5635, 6.8),
    ("rfnet", False, True): StepMemory(3004, 24.0),
    ("rfnet", True, False): StepMemory(2276, 37.7),
    ("rfnet", True, True): StepMemory(1382, 38.7),
    ("mmformer", False, False): StepMemory(1839, 66.2),
    ("mmformer", False, True): StepMemory(1055, 96.5),
    ("mmformer", True, False): StepMemory(917, 161.5),
    ("mmformer", True, True): StepMemory(499, 132.0),
    ("robustseg", False, False): StepMemory(9496, 69.5),
    ("robustseg", False, True): StepMemory(5124, 116.4),
    ("robustseg", True, False): StepMemory(2764, 121.9),
    ("robustseg", True, True): StepMemory(1671, 105.2),
    ("uhved", False, False): StepMemory(2497, 0.0),
    ("uhved", False, True): StepMemory(1598, 2.6),
    ("uhved", True, False): StepMemory(992, 5.1),
    ("uhved", True, True): StepMemory(920, 4.1),
}


@dataclasses.dataclass(frozen=True)
class StepSize:
    """What decides over a step's memory.

    Attributes:
        network: its name.
        width: channels of one modality at the finest level.
        parameters: of the network.
        voxels: of a crop.
        crops: that go through the network together.
        activation_checkpointing: whether it is on.
        in_16_bits: whether the network computes in bfloat16 or float16.
        averaged: whether a moving average of the weights is kept.
    """

    network: str
    width: int
    parameters: int
    voxels: int
    crops: int
    activation_checkpointing: bool
    in_16_bits: bool
    averaged: bool = False

    @classmethod
    def of(cls, plan: TrainingPlan, network: nn.Module) -> StepSize:
        """Of a run and its network."""
        options = plan.config.network
        return cls(
            network=options.network,
            width=options.width or NETWORKS[options.network].width,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            voxels=math.prod(plan.config.data.crop),
            crops=plan.batch_plan.pass_size,
            activation_checkpointing=options.activation_checkpointing,
            in_16_bits=plan.computation.in_16_bits,
            averaged=plan.config.training.ema is not None,
        )

    @property
    def expected_bytes(self) -> int:
        """By the measurements of the network at its published width, in proportion to voxels, crops and channels."""
        step = MEASURED[self.network, self.activation_checkpointing, self.in_16_bits]
        share = self.width / NETWORKS[self.network].width
        activations = step.bytes_per_voxel * self.voxels * self.crops * share
        weights = self.parameters * (_BYTES_PER_PARAMETER + _BYTES_PER_AVERAGED_PARAMETER * self.averaged)
        # Copies of weights, whose number goes with the square of the width.
        return round(weights + activations + 1e6 * step.fixed_mb * share**2)

    def remedies(self) -> list[str]:
        """The three settings that save most, with what the step then takes of what it takes now."""
        changes = {
            "--activation-checkpointing": {"activation_checkpointing": True},
            "--precision bfloat16": {"in_16_bits": True},
            "half of the crops at a time (--accumulate)": {"crops": max(self.crops // 2, 1)},
            "--crop-size with half of the voxels": {"voxels": self.voxels // 2},
        }
        sizes = {
            text: dataclasses.replace(self, **change).expected_bytes / self.expected_bytes  # type: ignore[arg-type]
            for text, change in changes.items()
        }
        best = sorted((share, text) for text, share in sizes.items() if share < 1)
        return [f"{text}: {share:.2f}x of the memory" for share, text in best[:3]]


def describe_need(size: StepSize) -> str:
    """One line on what a run is expected to need."""
    return f"Expected to need: {size.expected_bytes / 1e9:.2g} GB of tensors, by measurements of {size.network}"


@contextmanager
def full_memory_explained(size: StepSize) -> Iterator[None]:
    """Turn the error of a full memory into one that says what to do.

    Raises:
        UserError: the memory is full.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_full_memory(error):
            raise
        remedies = "; ".join(size.remedies())
        raise UserError(
            f"the memory is full. What saves most, by measurements of {size.network}: {remedies}. "
            f"({str(error).splitlines()[0]})"
        ) from error


def _is_full_memory(error: RuntimeError) -> bool:
    # The CPU's allocator has no error of its own.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
