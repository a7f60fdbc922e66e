"""What changes while a run trains, and what a checkpoint therefore holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gss_train.config import TrainingOptions
from gss_train.models import SegmentationNetwork
from gss_train.training.averaging import WeightAverage
from gss_train.training.computation import Computation
from gss_train.training.gathering import Gathered, StepResult
from gss_train.training.update import AdamSettings, GuardedUpdate


@dataclass
class TrainingState:
    """Where a run stands.

    The states of all random generators are in it as the step: every draw is a function of the seed and the step, and
    PyTorch's own generators are seeded from these at each pass; see `gss_train.training.draws`. So is the loader's
    position.

    Attributes:
        network: that is trained.
        steps_per_epoch: the same for all epochs.
        average: of its weights, if wanted.
        update: the optimiser of the stage under way; None between stages.
        stage: number of the stage, 0 for the first.
        stage_epoch: epochs of the stage that are finished.
        epoch: epochs of the run that are finished.
        step: steps of the run that are finished.
        gathered: what the steps left.
        bad_row: how many of the last steps had bad numbers.
        bad_steps: how many in all.
        training_subjects: names of those that the weights have been trained on, as far as known.
    """

    network: SegmentationNetwork
    steps_per_epoch: int
    average: WeightAverage | None = None
    update: GuardedUpdate | None = None
    stage: int = 0
    stage_epoch: int = 0
    epoch: int = 0
    step: int = 0
    gathered: Gathered = field(default_factory=Gathered)
    bad_row: int = 0
    bad_steps: int = 0
    training_subjects: frozenset[str] = frozenset()
    _loaded_update: dict[str, Any] | None = None

    @property
    def evaluated(self) -> SegmentationNetwork:
        """The network that counts: the averaged one, if there is one."""
        return self.network if self.average is None else self.average.network

    @property
    def step_of_epoch(self) -> int:
        """Steps of the epoch under way that are finished."""
        return self.step - self.epoch * self.steps_per_epoch

    @property
    def stage_step(self) -> int:
        """Steps of the stage that are finished."""
        return self.stage_epoch * self.steps_per_epoch + self.step_of_epoch

    def begin_or_continue_stage(self, options: TrainingOptions, computation: Computation) -> GuardedUpdate:
        """A fresh optimiser, or the one that a checkpoint holds."""
        self.update = GuardedUpdate(
            self.network.parameters(),
            AdamSettings.of(options),
            computation.device,
            clip_gradient=options.clip_gradient,
            scale_loss=computation.precision == "float16",
        )
        if self._loaded_update is not None:
            self.update.load_state_dict(self._loaded_update)
            self._loaded_update = None
        return self.update

    def count_step(self, result: StepResult) -> None:
        """A step is finished."""
        self.gathered.add(self.step, result)
        self.step += 1
        if self.average is not None:
            self.average.follow(self.network, self.step)

    def count_epoch(self) -> None:
        """An epoch is finished."""
        self.epoch += 1
        self.stage_epoch += 1

    def end_stage(self) -> None:
        """A stage is finished."""
        self.stage += 1
        self.stage_epoch = 0
        self.update = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values for a checkpoint."""
        return {
            "weights": self.network.state_dict(),
            "averaged": None if self.average is None else self.average.network.state_dict(),
            "update": None if self.update is None else self.update.state_dict(),
            "position": {name: getattr(self, name) for name in _COUNTS},
            "gathered": self.gathered.state_dict(),
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.network.load_state_dict(content["weights"])
        if self.average is not None:
            self.average.network.load_state_dict(content["averaged"])
        self._loaded_update = content["update"]
        for name in _COUNTS:
            setattr(self, name, content["position"][name])
        self.gathered.load_state_dict(content["gathered"])


_COUNTS = ("steps_per_epoch", "stage", "stage_epoch", "epoch", "step", "bad_row", "bad_steps")
