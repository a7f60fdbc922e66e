from __future__ import annotations

import pytest

from gss_train.config import SelfSupportOptions, TrainingOptions
from gss_train.training.objective import GROUP_SELF_SUPPORT
from gss_train.training.schedule import Stage, plan_stages


def names(**options: object) -> list[tuple[str, int]]:
    schedule = TrainingOptions(**options)
    stages = plan_stages(schedule, SelfSupportOptions())
    assert len(stages) == schedule.num_stages
    return [(stage.name, stage.epochs) for stage in stages]


def test_published_stages() -> None:
    rounds = [(f"GSS round {number}", 300) for number in range(1, 6)]
    assert names() == [("baseline", 300), *rounds]
    assert names(baseline_epochs=0) == rounds
    assert names(gss=False, epochs=27) == [("baseline", 27)]


def test_only_a_baseline_warms_its_fusion_up() -> None:
    baseline, *rounds = plan_stages(TrainingOptions(), SelfSupportOptions())
    assert baseline.fusion_warmup_epochs == 20
    assert {stage.fusion_warmup_epochs for stage in rounds} == {0}
    assert [baseline.objective_at(epoch, 150 * epoch).fused for epoch in (0, 19, 20)] == [0, 0, 1]


def test_the_learning_rate_decays_by_the_published_power() -> None:
    stage = Stage("a stage", GROUP_SELF_SUPPORT, epochs=4)
    assert [stage.decay(epoch) for epoch in range(4)] == pytest.approx([1, 0.75**0.9, 0.5**0.9, 0.25**0.9])


def test_the_learning_rate_stays_where_it_does_not_decay() -> None:
    for stage in plan_stages(TrainingOptions(learning_rate_decay="none"), SelfSupportOptions()):
        assert {stage.decay(epoch) for epoch in range(300)} == {1.0}


def test_stages_have_the_losses_that_were_asked_for() -> None:
    options = TrainingOptions(dice_denominator="squares", cross_entropy="plain", rounds=1)
    baseline, gss = plan_stages(options, SelfSupportOptions(semantics="released", temperature=4.0, separate_weight=0.5))
    assert (baseline.objective.squares, baseline.objective.plain, baseline.objective.gss) == (True, True, 0)
    assert (gss.objective.squares, gss.objective.plain) == (False, False)
    assert (gss.objective.vote.semantics, gss.objective.vote.temperature) == ("released", 4)
    assert (gss.objective.separate, gss.objective.gss) == (0.5, pytest.approx(0.3 * 16 / 10))


def test_the_gss_weight_waits_and_then_grows_in_equal_parts() -> None:
    _, first, second = plan_stages(TrainingOptions(rounds=2, gss_warmup=3, gss_ramp=4), SelfSupportOptions())
    full = GROUP_SELF_SUPPORT.gss
    for stage in (first, second):
        weights = [stage.objective_at(0, step).gss / full for step in range(10)]
        assert weights == pytest.approx([0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1])
        assert {stage.objective_at(0, step).separate for step in range(10)} == {GROUP_SELF_SUPPORT.separate}


def test_without_warm_up_and_ramp_gss_counts_in_full_from_the_first_step() -> None:
    *_, last = plan_stages(TrainingOptions(), SelfSupportOptions())
    assert last.objective_at(0, 0) == GROUP_SELF_SUPPORT


@pytest.mark.parametrize("option", ["rounds", "epochs", "steps_per_epoch", "batch_size"])
def test_counts_of_zero_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match="--" + option.replace("_", "-")):
        TrainingOptions(**{option: 0})
