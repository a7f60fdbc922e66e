"""The training of a run: from the settings to a network, begun or gone on with."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gss_train.common import Interrupted, Interruption, Processes, UserError, show_progress
from gss_train.config import Config
from gss_train.data import Dataset, PreparedSubject, TrainingCrops
from gss_train.models import SegmentationNetwork, build_network
from gss_train.runs import CheckpointError, CheckpointStore, LoadedWeights, RunFolder, load_weights
from gss_train.training.averaging import WeightAverage
from gss_train.training.batches import BatchPlan, TrainingBatches
from gss_train.training.computation import Computation, pick_autocast
from gss_train.training.drawing import Drawing
from gss_train.training.gathering import Gathered
from gss_train.training.loop import train
from gss_train.training.memory import StepSize, describe_need
from gss_train.training.objective import published_baseline
from gss_train.training.recorder import Recorder, Setting
from gss_train.training.schedule import plan_stages
from gss_train.training.state import TrainingState


def build(config: Config, dataset: Dataset, device: torch.device) -> SegmentationNetwork:
    """The network of a run, with weights of its seed.

    Raises:
        UserError: it cannot have this crop or width.
    """
    options = config.network
    torch.manual_seed(config.run.seed)
    try:
        network = build_network(
            options.network,
            dataset.num_categories,
            crop_size=config.data.crop,
            width=options.width,
            activation_checkpointing=options.activation_checkpointing,
        )
    except ValueError as error:
        raise UserError(f"--network, --crop-size, --width: {error}") from error
    return network.to(device)


@dataclass
class TrainingRun:
    """A run's training.

    Attributes:
        config: all settings.
        dataset: that it trains on.
        device: that it trains on.
        processes: that train together.
        network: that is trained.
        output: the run folder's path.
        drawing: draws its figures.
        loaded: what `--init-from` held, None where the training did not begin, or does not begin again, from it.
    """

    config: Config
    dataset: Dataset
    device: torch.device
    processes: Processes
    network: SegmentationNetwork
    output: Path
    drawing: Drawing
    loaded: LoadedWeights | None = None

    def __post_init__(self) -> None:
        options = self.config.training
        self.stages = plan_stages(options, published_baseline(self.config.network.network))
        try:
            self.plan = BatchPlan(options.batch_size, options.accumulate, options.steps_per_epoch, self.processes)
        except ValueError as error:
            raise UserError(str(error)) from error
        self.checkpoints = CheckpointStore(self.output / "checkpoints", self.config.record.keep_checkpoints)
        self.goes_on = self.checkpoints.has_any
        if options.init_from is not None and not self.goes_on:
            self.loaded = load_weights(self.network, options.init_from)

    @property
    def computation(self) -> Computation:
        """How a step is computed."""
        return Computation(
            self.device,
            pick_autocast(self.config.training.precision, self.device),
            self.config.training.channels_last,
            self.config.augmentation.settings(),
        )

    @property
    def precision(self) -> str:
        """That the network computes in, such as "float32"."""
        return str(self.computation.autocast or torch.float32).removeprefix("torch.")

    @property
    def size(self) -> StepSize:
        """What decides over the memory."""
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return StepSize.of(self.config, parameters, self.plan.pass_size, self.computation.autocast)

    def announce(self) -> None:
        """Say what was chosen, and what it is expected to need."""
        config, options = self.config, self.config.training
        if self.loaded is not None:
            keys = self.loaded.public_keys
            which = "all weights" if keys is None else f"{len(keys.used)} public keys, {len(keys.unused)} not used"
            print(f"Starting from {options.init_from}: {which}")
        stages = ", then ".join(f"{stage.name} of {stage.epochs} epochs" for stage in self.stages)
        crop = "x".join(str(length) for length in config.data.crop)
        categories = self.dataset.categories
        print(f"{self.dataset.title}: {self.dataset.num_categories} categories ({', '.join(categories)})")
        if config.run.preset == "quick" and not config.data.uses_phantom:
            print("Preset quick: a first look at your data, not the published training, which is --preset paper")
        others = f" and {self.processes.size - 1} more" if self.processes.size > 1 else ""
        where = f"{self.device}{others}, {self.precision}"
        print(
            f"Preset {config.run.preset}: {config.network.network} with {self.size.parameters:,} parameters on {where}"
        )
        divided = f" ({self.plan.pass_size} at a time)" if self.plan.pass_size < options.batch_size else ""
        print(
            f"Stages: {stages}; {options.steps_per_epoch} steps an epoch of {options.batch_size} crops{divided} of "
            f"{crop} voxels; seed {config.run.seed}"
        )
        print(describe_need(self.size), flush=True)

    def refuse_leak(self, test: Sequence[str]) -> None:
        """Weights must not be tested on subjects that they were trained on.

        Raises:
            UserError: they would be.
        """
        leaked = sorted(self.loaded.training_subjects & set(test)) if self.loaded is not None else []
        if leaked:
            raise UserError(
                f"--init-from: {self.config.training.init_from} was trained on {len(leaked)} of the {len(test)} test "
                f"subjects, such as {leaked[0]}; take the --split-seed, --fold or --split-file of its run"
            )

    def train(
        self, subjects: Sequence[PreparedSubject], validation: Sequence[PreparedSubject], folder: RunFolder | None
    ) -> SegmentationNetwork:
        """Train all stages, or what is left of them.

        Args:
            subjects: to train on.
            validation: to validate on.
            folder: of the run, in the first process.

        Returns:
            The network to be evaluated.

        Raises:
            UserError: a checkpoint cannot be used, or the numbers went bad.
            Interrupted: a signal came; the run is saved.
        """
        options = self.config.training
        length = options.batch_size * options.steps_per_epoch
        data, seed = self.config.data, self.config.run.seed
        crops = TrainingCrops(subjects, data.crop, length, seed, data.tumour_share)
        batches = TrainingBatches(crops, self.plan, seed, workers=data.workers, pin_memory=self.device.type == "cuda")
        state, progress = self._state()
        before = progress["training_subjects"] if progress else self.loaded.training_subjects if self.loaded else ()
        seen = frozenset({*(subject.name for subject in subjects), *before})
        setting = Setting(
            self.config,
            self.dataset,
            batches,
            validation,
            self.device,
            self.processes,
            seen,
            self.precision,
            self.drawing,
        )
        total_steps = options.steps_per_epoch * sum(stage.epochs for stage in self.stages)
        with Interruption() as interruption, show_progress("training", quiet=folder is None) as meter:
            recorder = Recorder(setting, folder, interruption, meter, total_steps)
            recorder.begin(state, progress)
            try:
                self._train(state, batches, recorder)
            finally:
                recorder.close()
        # One that came after the last step; the others have to know, or they would wait for this process.
        if self.processes.any(interruption.signal is not None):
            raise Interrupted(interruption.signal or signal.SIGTERM)
        return state.evaluated

    def _train(self, state: TrainingState, batches: TrainingBatches, recorder: Recorder) -> None:
        state.network.train()
        train(
            state,
            self.stages,
            batches,
            self.dataset.groups,
            self.config.training,
            self.computation,
            recorder,
            gather_every=self.config.record.gather_every,
            processes=self.processes,
        )

    def _state(self) -> tuple[TrainingState, dict[str, Any] | None]:
        """As the newest checkpoint left it, or at the start; and what the checkpoint has beside it."""
        options = self.config.training
        if options.channels_last:
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        average = None if options.ema is None else WeightAverage(self.network, options.ema)
        state = TrainingState(self.network, options.steps_per_epoch, average, gathered=Gathered(self.processes))
        content = self.checkpoints.newest(lambda message: print(message, flush=True))
        progress: dict[str, Any] | None = None
        if content is not None:
            try:
                state.load_state_dict(content)
                progress = content["progress"]
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{self.checkpoints.folder}: does not fit the run: {error}") from error
            print(f"Going on after step {state.step} of the run in {self.output}", flush=True)
            if progress["precision"] != self.precision:
                print(f"Until now it computed in {progress['precision']}: the --device is another", flush=True)
        # Nobody writes a checkpoint before all have read this one.
        self._refuse_different_steps(state.step)
        return state, progress

    def _refuse_different_steps(self, step: int) -> None:
        steps = self.processes.gather(step)
        if len(set(steps)) > 1:
            raise UserError(
                f"--output: the processes found checkpoints of different steps, {', '.join(map(str, steps))}; "
                f"{self.output} has to lie on a file system that all of them share"
            )
