"""Training steps give the losses that RFNet's public training code gives from the same weights, crops and subsets.

`rfnet_c4_steps.json` holds the losses of twenty steps of that code (its networks, losses, loop and Adam, in float64 on
a CPU; learning rate 2e-4, weight decay 1e-4), in the first of which its fusion does not count yet.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gss_kernels import BRATS_2020
from gss_train.data import AugmentationSettings
from gss_train.models import SegmentationOutput, build_network, load_public_checkpoint
from gss_train.training import (
    BASELINE,
    TERMS,
    AdamSettings,
    Computation,
    GuardedUpdate,
    Objective,
    ParallelNetwork,
    Pass,
    sample_generator,
    training_step,
)
from tests.gss_train.models.public_weights import DATA, rfnet_weights

EDGE = 16
WARMUP_STEPS = 1
CPU = torch.device("cpu")
AS_IT_IS = AugmentationSettings(rotation_degrees=0, flip=False, scale=0.0, shift=0.0)


class InFloat64(ParallelNetwork):
    """Calls a network whose weights are float64; crops are float32."""

    def __call__(self, *inputs: Tensor) -> SegmentationOutput:
        image, *masks = inputs
        return super().__call__(image.double(), *masks)


def draw_pass(step: int) -> Pass:
    """Blobs of the four categories, scans that show them in noise, and a subset for each sample."""
    generator = torch.Generator().manual_seed(7000 + step)
    scores = torch.randn(2, 4, 4, 4, 4, generator=generator).double()
    scores[:, 0] += 0.5
    label = functional.interpolate(scores, size=(EDGE,) * 3, mode="trilinear", align_corners=True).argmax(1)
    image = torch.randn(2, 4, EDGE, EDGE, EDGE, generator=generator) + label[:, None]
    numbers = torch.randint(1, 16, (2, 1), generator=generator)
    return Pass(
        image,
        label.to(torch.uint8),
        available=torch.ones(2, 4, dtype=torch.bool),
        fused_modalities=(numbers >> torch.arange(4) & 1).bool(),
        subjects=torch.arange(2),
        generators=[sample_generator(0, step, sample) for sample in range(2)],
        mask_seed=0,
        network_seed=0,
        first_sample=0,
    )


@pytest.mark.parametrize("steps", [3, pytest.param(20, marks=pytest.mark.exhaustive)])
def test_losses_are_those_of_the_public_training_code(steps: int) -> None:
    network = build_network("rfnet", 4, crop_size=EDGE).double()
    load_public_checkpoint(network, rfnet_weights())
    update = GuardedUpdate(network.parameters(), AdamSettings(2e-4, 1e-4), CPU)
    losses = []
    for step in range(steps):
        weights = replace(BASELINE, fused=0.0) if step < WARMUP_STEPS else BASELINE
        objective = Objective(BRATS_2020, weights)
        settings = Computation(CPU, augmentation=AS_IT_IS)
        result = training_step(InFloat64(network), [draw_pass(step)], objective, update, settings)
        losses.append(dict(zip(TERMS, result.scalars.tolist(), strict=False)))
    published = json.loads((DATA / "rfnet_c4_steps.json").read_text())
    assert len(published) == 20
    for step, (ours, theirs) in enumerate(zip(losses, published[:steps], strict=True)):
        for term, loss in theirs.items():
            assert ours[term] == pytest.approx(loss, rel=1e-8), (step, term)
