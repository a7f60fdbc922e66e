"""One arm of the comparison: a network is trained until its time is over, then scored on held-out subjects."""

from __future__ import annotations

import collections
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.lines import Lines
from benchmarks.train.pace import Pace
from benchmarks.train.scores import Scoring
from benchmarks.train.subjects import Subjects
from gss_train.common import peak_memory_bytes
from gss_train.config import TrainingOptions
from gss_train.data import Dataset, TrainingCrops
from gss_train.inference import SlidingWindow, arithmetic, computing, pick_precision
from gss_train.models import SegmentationNetwork, build_network
from gss_train.training import (
    BASELINE,
    GROUP_SELF_SUPPORT,
    AdamSettings,
    BatchPlan,
    Computation,
    FetchedStep,
    Gathered,
    GuardedUpdate,
    Means,
    Objective,
    ParallelNetwork,
    Pass,
    Stage,
    TrainingBatches,
    training_step,
)

Arm = Literal["baseline", "gss", "longer"]
ARMS: tuple[Arm, ...] = ("baseline", "gss", "longer")

NETWORK = "rfnet"
# Parts of an arm, by which its learning rate decays as by epochs.
_PARTS = 100
_STEPS_PER_EPOCH = 150
_LAST_STEPS = 50


@dataclass(frozen=True)
class ArmSettings:
    """What all arms share.

    Attributes:
        width: channels of one modality at the finest level; None: as published.
        crop: voxels of a crop along each axis.
        batch_size: crops in a step.
        learning_rate: at the start of an arm; it decays by (1 - share of the arm that is over) ** 0.9.
        tumour_share: of crops that are placed such that they have tumour.
        workers: loader processes; 0 loads in the training process.
        warm_up_steps: the first ones, which steps per second leave out.
        line_seconds: from one line of progress to the next.
        steps: that an arm has at most; None: as many as there is time for.
    """

    width: int | None = None
    crop: int = 64
    batch_size: int = 2
    learning_rate: float = 1e-3
    tumour_share: float = 0.5
    workers: int = 0
    warm_up_steps: int = 5
    line_seconds: float = 3.0
    steps: int | None = None

    @property
    def crop_size(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return self.crop, self.crop, self.crop


@dataclass(frozen=True)
class PlannedArm:
    """One training.

    Attributes:
        arm: what it trains.
        seed: of weights, crops, augmentation and masks.
        weights: file that the baseline of this seed leaves and the others start from.
        steps: that it has at most; None: as many as there is time for.
        training_end: when to stop training, by `time.monotonic`.
        end: when to be over.
        scored: how many held-out subjects are scored by then, at most.
    """

    arm: Arm
    seed: int
    weights: Path
    steps: int | None
    training_end: float
    end: float
    scored: int


def seeded_network(settings: ArmSettings, dataset: Dataset, seed: int, device: torch.device) -> SegmentationNetwork:
    """With weights of a seed."""
    torch.manual_seed(seed)
    network = build_network(NETWORK, dataset.num_categories, crop_size=settings.crop_size, width=settings.width)
    return network.to(device)


def scoring(settings: ArmSettings, subjects: Subjects, device: torch.device, most: int | None = None) -> Scoring:
    """Of the first held-out subjects, by the protocol's sliding window."""
    return Scoring(subjects.held_out[:most], subjects.dataset, SlidingWindow(settings.crop_size), device)


def train_arm(plan: PlannedArm, settings: ArmSettings, subjects: Subjects, device_type: str, lines: Lines) -> int:
    """Train and score; lines say how it goes and what came of it.

    Returns:
        The steps that it had.
    """
    device = torch.device(device_type)
    network = seeded_network(settings, subjects.dataset, plan.seed, device)
    if plan.arm != "baseline":
        if not plan.weights.exists():
            raise FileNotFoundError("the baseline of this seed left no weights to start from")
        network.load_state_dict(torch.load(plan.weights, map_location=device, weights_only=True))
    training = ArmTraining(plan, settings, subjects, network, device)
    with arithmetic(training.computation.precision):
        for report in training.run():
            lines.write("progress", **report)
    if plan.arm == "baseline":
        torch.save(network.state_dict(), plan.weights)
    result = training.report()
    with computing(training.computation.precision, device):
        scores = scoring(settings, subjects, device, plan.scored).means(network, plan.end)
    lines.write("result", **result, most_steps=plan.steps, **scores)
    return training.pace.step


class ArmTraining:
    """The training of an arm.

    Attributes:
        pace: how far it is.
        computation: how a step is computed.
    """

    def __init__(
        self,
        plan: PlannedArm,
        settings: ArmSettings,
        subjects: Subjects,
        network: SegmentationNetwork,
        device: torch.device,
    ) -> None:
        self._plan, self._settings, self._device = plan, settings, device
        self._network = network.train()
        weights = GROUP_SELF_SUPPORT if plan.arm == "gss" else BASELINE
        self._stage = Stage(plan.arm, weights, epochs=_PARTS)
        self._objective = Objective(subjects.dataset.groups, weights)
        length = settings.batch_size * _STEPS_PER_EPOCH
        crops = TrainingCrops(subjects.training, settings.crop_size, length, plan.seed, settings.tumour_share)
        self._batches = TrainingBatches(
            crops,
            BatchPlan(settings.batch_size, passes=1, steps=_STEPS_PER_EPOCH),
            plan.seed,
            workers=settings.workers,
            pin_memory=device.type == "cuda",
        )
        self._gathered = Gathered()
        self._last: collections.deque[FetchedStep] = collections.deque(maxlen=_LAST_STEPS)
        self.pace = Pace(plan.training_end, plan.steps, settings.warm_up_steps)
        self.computation = Computation(device, pick_precision("auto", device))

    def run(self) -> Iterator[dict[str, Any]]:
        """Train; a report every few seconds."""
        options = TrainingOptions()
        update = GuardedUpdate(
            self._network.parameters(),
            AdamSettings(self._settings.learning_rate, options.weight_decay),
            self._device,
        )
        network, pace, reported = ParallelNetwork(self._network), self.pace, time.monotonic()
        for passes in self._passes():
            update.learning_rate = self._settings.learning_rate * self._stage.decay(int(_PARTS * pace.share))
            self._gathered.add(pace.step, training_step(network, passes, self._objective, update, self.computation))
            pace.count()
            if pace.ends_warm_up:
                self._fetch()
                pace.end_warm_up()
            if time.monotonic() - reported >= self._settings.line_seconds:
                yield self.report()
                reported = time.monotonic()
            if pace.is_over:
                return

    def report(self) -> dict[str, Any]:
        """Wait for the steps until now, and say how it goes."""
        self._fetch()
        last = Means()
        for step in self._last:
            last.add(step)
        return {
            "arm": self._plan.arm,
            "seed": self._plan.seed,
            "steps": self.pace.step,
            "seconds": self.pace.seconds,
            "steps_per_s": self.pace.steps_per_second,
            "peak_memory_mb": peak_memory_bytes(self._device) / 1e6,
            "skipped_steps": self._gathered.recent.skipped,
            f"losses_of_last_{_LAST_STEPS}_steps": last.terms(),
        }

    def _fetch(self) -> None:
        self._last.extend(self._gathered.fetch())

    def _passes(self) -> Iterator[list[Pass]]:
        for epoch in itertools.count():
            yield from self._batches.steps(epoch)
