"""What a run trains, stage by stage: objectives, learning rates, weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gss_train.config import TrainingOptions
from gss_train.training.objective import BASELINE, GROUP_SELF_SUPPORT, ObjectiveWeights

_DECAY_POWER = 0.9


@dataclass(frozen=True)
class Stage:
    """A stretch of training with a fresh optimiser and a learning rate that decays to zero.

    Attributes:
        name: for people.
        weights: of the objective.
        epochs: how many.
        fusion_warmup_epochs: the first ones, in which the fused prediction does not count.
        gss_warmup: first steps in which the GSS loss does not count.
        gss_ramp: steps after these over which its weight grows linearly to what it is in `weights`.
    """

    name: str
    weights: ObjectiveWeights
    epochs: int
    fusion_warmup_epochs: int = 0
    gss_warmup: int = 0
    gss_ramp: int = 0

    def decay(self, stage_epoch: int) -> float:
        """What the learning rate is multiplied by in an epoch, `(1 - epoch / epochs) ** 0.9`; 0 for the first."""
        return float((1 - stage_epoch / self.epochs) ** _DECAY_POWER)

    def weights_at(self, stage_epoch: int, stage_step: int) -> ObjectiveWeights:
        """The objective's weights in a step.

        Args:
            stage_epoch: 0 for the first.
            stage_step: 0 for the stage's first.
        """
        fused = 0.0 if stage_epoch < self.fusion_warmup_epochs else self.weights.fused
        ramped = stage_step + 1 - self.gss_warmup
        share = min(max(ramped, 0) / (self.gss_ramp + 1), 1.0)
        return replace(self.weights, fused=fused, gss=self.weights.gss * share)


def plan_stages(options: TrainingOptions, baseline: ObjectiveWeights = BASELINE) -> list[Stage]:
    """The stages of a run: the baseline, and with GSS the rounds that start from it or from `init_from`.

    Args:
        options: the schedule.
        baseline: the objective of the baseline.
    """
    if not options.gss:
        return [Stage("baseline", baseline, options.epochs, options.fusion_warmup_epochs)]
    stages = [
        Stage(
            f"GSS round {number + 1}",
            GROUP_SELF_SUPPORT,
            options.epochs,
            gss_warmup=options.gss_warmup,
            gss_ramp=options.gss_ramp,
        )
        for number in range(options.rounds)
    ]
    if options.init_from is None and options.baseline_epochs > 0:
        stages.insert(0, Stage("baseline", baseline, options.baseline_epochs, options.fusion_warmup_epochs))
    return stages
