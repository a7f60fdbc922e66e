"""What a run trains, stage by stage: objectives, learning rates, weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gss_train.config import SelfSupportOptions, TrainingOptions
from gss_train.training.objective import ObjectiveSettings, baseline_objective, gss_objective

_DECAY_POWER = 0.9


@dataclass(frozen=True)
class Stage:
    """A stretch of training with a fresh optimiser and a learning rate of its own.

    Attributes:
        name: for people.
        objective: with all terms at their full weight.
        epochs: how many.
        decays: whether the learning rate falls to zero.
        fusion_warmup_epochs: the first ones, in which the fused prediction does not count.
        gss_warmup: first steps in which the GSS loss does not count.
        gss_ramp: steps after these over which its weight grows linearly to what it is in `weights`.
    """

    name: str
    objective: ObjectiveSettings
    epochs: int
    decays: bool = True
    fusion_warmup_epochs: int = 0
    gss_warmup: int = 0
    gss_ramp: int = 0

    def decay(self, stage_epoch: int) -> float:
        """What the learning rate is multiplied by in an epoch, `(1 - epoch / epochs) ** 0.9` or 1; 0 for the first."""
        return float((1 - stage_epoch / self.epochs) ** _DECAY_POWER) if self.decays else 1.0

    def objective_at(self, stage_epoch: int, stage_step: int) -> ObjectiveSettings:
        """The objective in a step.

        Args:
            stage_epoch: 0 for the first.
            stage_step: 0 for the stage's first.
        """
        fused = 0.0 if stage_epoch < self.fusion_warmup_epochs else self.objective.fused
        ramped = stage_step + 1 - self.gss_warmup
        share = min(max(ramped, 0) / (self.gss_ramp + 1), 1.0)
        return replace(self.objective, fused=fused, gss=self.objective.gss * share)


def plan_stages(options: TrainingOptions, self_support: SelfSupportOptions) -> list[Stage]:
    """The stages of a run: the baseline, and with GSS the rounds that start from it or from `init_from`.

    Args:
        options: the schedule.
        self_support: the GSS loss.
    """
    decays = options.learning_rate_decay == "poly"
    stages = []
    if options.epochs_of_baseline > 0:
        baseline = baseline_objective(options)
        stages.append(Stage("baseline", baseline, options.epochs_of_baseline, decays, options.fusion_warmup_epochs))
    for number in range(options.rounds if options.gss else 0):
        objective = gss_objective(self_support)
        stages.append(
            Stage(
                f"GSS round {number + 1}",
                objective,
                options.epochs,
                decays,
                gss_warmup=options.gss_warmup,
                gss_ramp=options.gss_ramp,
            )
        )
    return stages
