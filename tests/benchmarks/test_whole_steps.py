"""The engine's whole training step as it is benchmarked."""

from __future__ import annotations

import pytest
import torch

from benchmarks.network_steps import PUBLISHED_EDGES
from benchmarks.whole_steps import PlainObjective, WholeStep, WholeStepSettings
from gss_kernels import BRATS_2018
from gss_train.config.presets import preset_config
from gss_train.models import SegmentationOutput
from gss_train.models.registry import NETWORKS
from gss_train.training.objective import BASELINE, GROUP_SELF_SUPPORT, Objective

CPU = torch.device("cpu")


def small(preset: str = "paper", **options: object) -> WholeStep:
    return WholeStep(WholeStepSettings("rfnet", preset, edge=16, batch=1, width=4, **options), CPU)


def weights(step: WholeStep) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in step.network.parameters()]


def test_presets_are_benchmarked_with_their_own_crops() -> None:
    for network in NETWORKS:
        for preset in ("paper", "lean"):
            assert preset_config(preset, network).data.crop == (PUBLISHED_EDGES[network],) * 3


def test_a_call_trains_and_leaves_no_gradient() -> None:
    step = small()
    before = weights(step)
    step()
    assert not any(map(torch.equal, weights(step), before))
    assert all(parameter.grad is None for parameter in step.network.parameters())


def test_lean_computes_what_paper_does() -> None:
    paper, lean = small("paper"), small("lean")
    assert lean.network.activation_checkpointing
    assert not paper.network.activation_checkpointing
    torch.testing.assert_close(lean().scalars, paper().scalars, rtol=1e-4, atol=1e-6)


def test_parts_leave_the_network_alone() -> None:
    step = small()
    before = weights(step)
    step.losses()
    image, labels = step.augmentation()
    assert (image.dtype, labels.dtype) == (torch.float32, torch.uint8)
    assert all(map(torch.equal, weights(step), before))
    assert all(parameter.grad is None for parameter in step.network.parameters())


def test_losses_are_of_all_that_the_network_gives() -> None:
    step = small()
    seen: list[SegmentationOutput] = []
    objective = step.objective

    def spy(output: SegmentationOutput, *arguments: object) -> object:
        seen.append(output)
        return objective(output, *arguments)

    step.objective = spy
    step.losses()
    (output,) = seen
    assert output.fused.shape == (1, 4, 16, 16, 16)
    assert len(output.separate) == 4
    assert output.auxiliary
    assert all(tensor.is_leaf and tensor.requires_grad for tensor in (output.fused, *output.separate))


@pytest.mark.parametrize("weights", [BASELINE, GROUP_SELF_SUPPORT], ids=["without GSS", "GSS"])
def test_plain_objective_is_the_same_but_for_the_mask(weights: object) -> None:
    generator = torch.Generator().manual_seed(0)

    def maps() -> torch.Tensor:
        return torch.randn(2, 4, 12, 12, 12, generator=generator)

    output = SegmentationOutput(maps(), tuple(maps() for _ in range(4)), (maps().softmax(1),), torch.tensor(0.5))
    labels = torch.randint(4, (2, 12, 12, 12), generator=generator, dtype=torch.uint8)
    available = torch.ones(2, 4, dtype=torch.bool)
    torch.manual_seed(0)
    plain, lean = (kind(BRATS_2018, weights)(output, labels, available, 0) for kind in (PlainObjective, Objective))
    assert float(plain.total) == pytest.approx(float(lean.total), rel=1e-3 if weights.gss else 1e-5)
