"""Whole training steps of the engine on any device, ready to be looked at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gss_kernels import BRATS_2018
from gss_train.config import ComputedPrecision
from gss_train.models import SegmentationNetwork, SegmentationOutput, build_network
from gss_train.training import (
    GROUP_SELF_SUPPORT,
    TERMS,
    AdamSettings,
    Computation,
    GuardedUpdate,
    Objective,
    ParallelNetwork,
    Pass,
    StepResult,
    mask_seed,
    network_seed,
    sample_generator,
    training_step,
)

_BATCH = 2


class WithoutNoise(ParallelNetwork):
    """Calls a network without dropout and posterior noise, which differ by device, for what it gives in training."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__(network)
        self._network = network.eval()

    def __call__(self, *inputs: Tensor) -> SegmentationOutput:
        image, fused_modalities, available = inputs
        return self._network(image, fused_modalities, available, per_modality=True)


@dataclass
class Training:
    """A network in training."""

    network: SegmentationNetwork
    call: ParallelNetwork
    update: GuardedUpdate
    settings: Computation
    edge: int
    steps: int = 0

    def step(self, image: Tensor | None = None) -> StepResult:
        """The next step, of the given image or of noise."""
        passes = [draw_pass(self.steps, self.edge, image, pinned=self.settings.device.type == "cuda")]
        self.steps += 1
        objective = Objective(BRATS_2018, GROUP_SELF_SUPPORT)
        return training_step(self.call, passes, objective, self.update, self.settings, return_stats=True)

    def weights(self) -> list[Tensor]:
        """On the CPU."""
        return [parameter.detach().cpu().clone() for parameter in self.network.parameters()]


def begin_training(
    network: str,
    device: str,
    *,
    precision: ComputedPrecision = "float32",
    checkpointing: bool = False,
    noise: bool = True,
    clip_gradient: float | None = None,
    edge: int = 32,
    compiled: bool = False,
) -> Training:
    """A small network with weights of seed 0, and its optimiser."""
    torch.manual_seed(0)
    built = build_network(network, 4, crop_size=(edge,) * 3, width=4, activation_checkpointing=checkpointing)
    built = built.to(device)
    settings = Computation(torch.device(device), precision)
    update = GuardedUpdate(
        built.parameters(),
        AdamSettings(2e-4, 1e-4),
        settings.device,
        clip_gradient=clip_gradient,
        scale_loss=precision == "float16",
    )
    call = ParallelNetwork(built, compiled=compiled) if noise else WithoutNoise(built)
    return Training(built, call, update, settings, edge)


def draw_pass(step: int, edge: int, image: Tensor | None = None, *, pinned: bool = False) -> Pass:
    """Crops of noise, one of them without a scan, as the loader gives them."""
    generator = torch.Generator().manual_seed(step)
    if image is None:
        image = torch.randn(_BATCH, 4, edge, edge, edge, generator=generator).half()
    label = torch.randint(4, (_BATCH, edge, edge, edge), generator=generator, dtype=torch.uint8)
    available = torch.tensor([[True, True, True, True], [True, True, False, True]])
    fused_modalities = torch.tensor([[True, False, True, True], [True, True, False, False]])
    image, label, available, fused_modalities = (
        tensor.pin_memory() if pinned else tensor for tensor in (image, label, available, fused_modalities)
    )
    return Pass(
        image,
        label,
        available,
        fused_modalities,
        torch.arange(_BATCH),
        generators=[sample_generator(0, step, sample) for sample in range(_BATCH)],
        mask_seed=mask_seed(0, step),
        network_seed=network_seed(0, step, 0),
        first_sample=0,
    )


def loss_of(result: StepResult) -> float:
    """The whole objective."""
    return float(result.scalars[TERMS.index("total")])


def check_that_a_bad_image_changes_nothing(training: Training) -> None:
    """Neither the weights nor what the optimiser keeps, and the next step counts again."""
    training.step()
    before, moments = training.weights(), _moments(training)
    bad = draw_pass(training.steps, training.edge).image
    bad[0, 0, training.edge // 2] = torch.nan
    *_, skipped, reported = training.step(bad).scalars.tolist()
    assert (skipped, reported) == (1, 1)
    assert all(map(torch.equal, training.weights(), before))
    assert all(map(torch.equal, _moments(training), moments))
    assert training.step().scalars[-2:].tolist() == [0, 0]
    assert not all(map(torch.equal, training.weights(), before))


def _moments(training: Training) -> list[Tensor]:
    states = training.update.optimiser.state.values()
    return [tensor.detach().cpu().clone() for state in states for tensor in state.values()]
