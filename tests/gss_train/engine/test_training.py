from __future__ import annotations

import pytest
import torch

from gss_train.config import TrainingOptions
from gss_train.engine.training import plan_stages, step_generator


def names(**options: object) -> list[tuple[str, int]]:
    return [(stage.name, stage.epochs) for stage in plan_stages(TrainingOptions(**options))]


def test_published_stages() -> None:
    rounds = [(f"GSS round {number}", 300) for number in range(1, 6)]
    assert names() == [("baseline", 300), *rounds]
    assert names(baseline_epochs=0) == rounds
    assert names(gss=False, epochs=27) == [("baseline", 27)]


def test_only_a_baseline_warms_its_fusion_up() -> None:
    baseline, *rounds = plan_stages(TrainingOptions())
    assert baseline.fusion_warmup_epochs == 20
    assert {stage.fusion_warmup_epochs for stage in rounds} == {0}


def test_each_step_has_its_own_random_numbers() -> None:
    drawn = {float(torch.rand((), generator=step_generator(seed, step))) for seed in range(3) for step in range(20)}
    assert len(drawn) == 60
    first, again = (torch.rand(5, generator=step_generator(1, 2)) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("option", ["rounds", "epochs", "steps_per_epoch", "batch_size"])
def test_counts_of_zero_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match="--" + option.replace("_", "-")):
        TrainingOptions(**{option: 0})
