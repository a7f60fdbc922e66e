"""The economy of a run of days, in minutes: `python -m benchmarks.long_run --network mmformer --seconds-per-step 1`.

A whole published training goes through the real loop, with all that follows it: journal, log, TensorBoard, cadence of
checkpoints and figures. In place of what takes time there is a clock that is put forward: a step, a validation, a
figure and a copy of the weights take what they are said to. Metrics, log and TensorBoard's files are written; of
checkpoints and figures only the bytes are counted.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args
from unittest import mock

import torch
from torch import Tensor

from benchmarks.simulated_time import SimulatedTime
from gss_train.common import ALONE, Interruption, duration
from gss_train.config import NetworkName, parse_config
from gss_train.data import DATASETS, subset_name
from gss_train.models import build_network
from gss_train.runs import RunFolder, ValidationRecord
from gss_train.training import (
    Drawing,
    GuardedUpdate,
    StepResult,
    TrainingBatches,
    TrainingState,
    checkpoint_writer,
    loop,
    recorder,
)
from gss_train.training.gathering import TERMS, Gathered
from gss_train.training.plan import TrainingPlan, plan_training
from gss_train.training.tensorboard import ScalarWriter
from gss_train.training.validation import ValidationSubjects

# Of noise in a crop of 128^3, which no picture of a scan exceeds; as much is set aside in TensorBoard's file.
_FIGURE_BYTES = 125_000
_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


@dataclass(frozen=True)
class Costs:
    """What things are said to take, in seconds unless it says otherwise.

    Attributes:
        step: of the training.
        validation: of one subject with one subset.
        figure: one.
        copied: bytes of a checkpoint that are copied to the host in a second.
    """

    step: float = 1.0
    validation: float = 0.5
    figure: float = 5.0
    copied: float = 1e9


@dataclass
class Account:
    """What a run came to.

    Attributes:
        steps: taken.
        epochs: finished.
        seconds: that it took.
        spent: of these, by what the steps had to wait for.
        counts: of validations, figures, checkpoints and lines of the log.
        bytes: written, by what.
    """

    steps: int = 0
    epochs: int = 0
    seconds: float = 0.0
    spent: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    @property
    def blocked(self) -> float:
        """Share of the time in which the steps wait for checkpoints."""
        return self.spent["checkpoint"] / self.seconds

    def to_markdown(self) -> str:
        """A table for people."""
        rows = [
            ("steps, epochs", f"{self.steps:,}, {self.epochs:,}"),
            ("time", duration(self.seconds)),
            *((f"steps waited for: {name}", f"{spent:,.0f} s") for name, spent in sorted(self.spent.items())),
            *((f"{name}, number", f"{count:,}") for name, count in sorted(self.counts.items())),
            *((f"{name}, written", f"{size / 1e9:.3f} GB") for name, size in sorted(self.bytes.items())),
            ("all written", f"{sum(self.bytes.values()) / 1e9:.1f} GB"),
        ]
        return "\n".join(["| | |", "| --- | ---: |", *(f"| {name} | {value} |" for name, value in rows)])


class _Simulation:
    """One run."""

    def __init__(self, arguments: Sequence[str], costs: Costs, folder: Path) -> None:
        self.costs = costs
        self.time = SimulatedTime()
        self.account = Account()
        config = parse_config(["--dataset", "brats2020", *arguments, "--device", "cpu", "--output", str(folder)])
        dataset = DATASETS["brats2020"]
        drawing = Drawing(self._draw, self._draw)
        plan = plan_training(config, dataset, torch.device("cpu"), ALONE, drawing)
        self.plan: TrainingPlan = replace(plan, clock=self.time.clock)
        network = build_network(
            config.network.network, dataset.num_categories, crop_size=config.data.crop, width=config.network.width
        )
        self.state = TrainingState(network, self.plan.batch_plan.steps, gathered=Gathered())
        self.generator = torch.Generator().manual_seed(0)

    def run(self) -> Account:
        batches = cast("TrainingBatches", _NoBatches(self.plan))
        everybody: Any = [SimpleNamespace(name=str(number)) for number in range(50)]
        subjects = ValidationSubjects(everybody[: self.plan.config.validation.validation_subjects], everybody)
        with RunFolder.open(self.plan.output, resume=False) as folder, self._in_place_of_what_takes_time():
            with (
                open(os.devnull, "w") as nowhere,  # noqa: PTH123  (no path)
                contextlib.redirect_stdout(nowhere),
                recorder.Recorder(self.plan, batches, subjects, folder, Interruption()) as follower,
            ):
                follower.begin(self.state, None)
                loop.train(self.plan, self.state, batches, follower)
            self._conclude(folder, follower)
        return self.account

    def _conclude(self, folder: RunFolder, follower: recorder.Recorder) -> None:
        account = self.account
        account.steps, account.epochs, account.seconds = self.state.step, self.state.epoch, self.time.seconds
        for kind, interludes in follower.pace.interludes.items():
            account.spent[kind] = interludes.seconds
        account.counts["line of train.log"] = len(folder.log.read_text().splitlines())
        for path in (folder.log, folder.metrics):
            account.bytes[path.name] = path.stat().st_size
        account.bytes["tensorboard"] = sum(path.stat().st_size for path in folder.tensorboard.glob("*"))

    @contextlib.contextmanager
    def _in_place_of_what_takes_time(self) -> Iterator[None]:
        with (
            mock.patch.object(loop, "training_step", self._step),
            mock.patch.object(recorder, "validate", self._validate),
            mock.patch.object(recorder, "segment_tumour_crop", return_value=(None, None, None)),
            mock.patch.object(checkpoint_writer, "_copy", self._copy),
            mock.patch.object(checkpoint_writer, "Thread", _AtOnce),
            mock.patch.object(checkpoint_writer, "save_checkpoint", self._save),
            mock.patch.object(self.plan.checkpoints, "save", self._save_step),
            mock.patch.object(ScalarWriter, "write_figure", self._write_figure),
        ):
            yield

    def _step(self, *arguments: object, **_: object) -> StepResult:
        update = cast("GuardedUpdate", arguments[3])
        self.time.pass_by(self.costs.step)
        if not update.optimiser.state:
            _pretend_moments(update)
        done = self.state.step / self.plan.total_steps
        noise = torch.randn((), generator=self.generator).item()
        terms = torch.full((len(TERMS),), math.exp(-3 * done) + 0.3 + 0.1 * noise)
        return StepResult(torch.cat([terms, torch.tensor([1.0, 0.0, 0.0])]), None)

    def _validate(self, *arguments: Any, **options: Any) -> ValidationRecord:
        subjects = arguments[1]
        subsets, before = options["subsets"], options["best_before"]
        self.time.pass_by(self.costs.validation * len(subjects) * len(subsets))
        self.account.counts["validations"] += 1
        done = self.state.step / self.plan.total_steps
        noise = torch.randn((), generator=self.generator).item()
        dice = 0.85 - 0.6 * math.exp(-12 * done) + 0.01 * noise
        return ValidationRecord(
            **{name: options[name] for name in ("stage", "epoch", "step")},
            mean_dice=dice,
            dice={subset_name(subset): dict.fromkeys(("WT", "TC", "ET"), dice) for subset in subsets},
            best=before is None or dice >= before,
        )

    def _draw(self, path: Path, *_: object) -> None:
        self.time.pass_by(self.costs.figure)
        self._count("figures", _FIGURE_BYTES)
        path.parent.mkdir(exist_ok=True)
        path.touch()

    def _write_figure(self, *_: object) -> None:
        self._count("figures for TensorBoard", _FIGURE_BYTES)

    def _copy(self, content: Any) -> Any:
        self.time.pass_by(_tensor_bytes(content) / self.costs.copied)
        return content

    def _save(self, _: Path, content: Any) -> None:
        self._count("weights of stages", _tensor_bytes(content))

    def _save_step(self, _: int, content: Any, best: tuple[int, Any] | None) -> None:
        if best is not None:
            self._count("best weights", _tensor_bytes(best[1]))
        self._count("checkpoints", _tensor_bytes(content))

    def _count(self, what: str, size: int) -> None:
        self.account.counts[what] += 1
        self.account.bytes[what] += size


class _AtOnce:
    """In place of a thread, whose writing would be done long before the next checkpoint is due."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], daemon: bool) -> None:  # noqa: ARG002
        self._work = partial(target, *args)

    def start(self) -> None:
        self._work()

    def is_alive(self) -> bool:
        return False

    def join(self) -> None:
        pass


class _NoBatches:
    """In place of `TrainingBatches`: no crop is read."""

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan.batch_plan
        self.crops = SimpleNamespace(subjects=())

    def steps(self, _: int, first_step: int = 0) -> Iterator[list[Any]]:
        for _step in range(first_step, self.plan.steps):
            yield []


def _pretend_moments(update: GuardedUpdate) -> None:
    """Of the sizes that they have after a step, in no memory."""
    for parameter in update.parameters:
        zeros = torch.zeros(()).expand_as(parameter)
        count = 3 if update.optimiser.defaults["amsgrad"] else 2
        update.optimiser.state[parameter] = {"step": torch.zeros(()), **dict.fromkeys(_MOMENTS[:count], zeros)}


def _tensor_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_tensor_bytes, parts))


def simulate(arguments: Sequence[str], costs: Costs, folder: Path) -> Account:
    """The account of a run.

    Args:
        arguments: of `python -m gss_train.main`, but for data set, device and output.
        costs: what things take.
        folder: of the run; made.
    """
    return _Simulation(arguments, costs, folder).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate a published training, and print its account."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_run", description=__doc__)
    parser.add_argument("--network", choices=get_args(NetworkName), default="mmformer")
    parser.add_argument("--seconds-per-step", type=float, default=Costs.step)
    parser.add_argument("--validation-seconds", type=float, default=Costs.validation, help="of a subject and subset")
    parser.add_argument("--figure-seconds", type=float, default=Costs.figure)
    parser.add_argument("--copied-per-second", type=float, default=Costs.copied, help="bytes of a checkpoint")
    options, rest = parser.parse_known_args(arguments)
    costs = Costs(
        options.seconds_per_step, options.validation_seconds, options.figure_seconds, options.copied_per_second
    )
    with tempfile.TemporaryDirectory() as folder:
        own = ["--preset", "paper", "--network", options.network, *rest]
        print(simulate(own, costs, Path(folder) / "run").to_markdown())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
