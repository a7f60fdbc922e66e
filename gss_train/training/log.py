"""The log of a training for people: `train.log` in the run folder, and the same lines on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from gss_train.common import Clock, duration, peak_memory_bytes, writing
from gss_train.data import REGIONS
from gss_train.runs import RunFolder, ValidationRecord
from gss_train.training.pace import Mark, Pace
from gss_train.training.plan import TrainingPlan
from gss_train.training.schedule import Stage
from gss_train.training.state import TrainingState

_SECONDS_TO_FIRST_LINE = 30.0
_SECONDS_BETWEEN_EPOCHS = 60.0
_SECONDS_WITHIN_AN_EPOCH = 600.0
_STEPS_UNTIL_EXPECTATION = 50


class TrainingLog:
    """Lines with date and time.

    Args:
        folder: of the run, to whose log they are added; None in processes that keep quiet.
        clock: for the time of day.
    """

    def __init__(self, folder: RunFolder | None, clock: Clock) -> None:
        self._path = None if folder is None else folder.log
        self._clock = clock

    def note(self, *lines: str) -> None:
        """Add lines to the file alone.

        Raises:
            OSError: it cannot be written.
        """
        if self._path is not None:
            with writing(self._path), self._path.open("a", encoding="utf-8") as file:
                file.writelines(f"{self._stamp()} {line}\n" for line in lines)

    def say(self, line: str) -> None:
        """Add a line, and show it.

        Raises:
            OSError: the file cannot be written.
        """
        if self._path is not None:
            self.note(line)
            print(f"{self._stamp()} {line}", flush=True)

    def _stamp(self) -> str:
        return f"{self._clock.now():%Y-%m-%d %H:%M:%S}"


class ProgressLines:
    """Says how a training goes: a line after each epoch, but one a minute at most, and some within long epochs.

    Args:
        plan: of the run.
        pace: of the training.
        log: that the lines go to.
    """

    def __init__(self, plan: TrainingPlan, pace: Pace, log: TrainingLog) -> None:
        self._plan = plan
        self._pace = pace
        self._log = log
        self._last: float | None = None
        self._mark: Mark = pace.mark()
        self._epoch_mark: Mark = self._mark
        self._expectation_is_said = False
        self._validation: ValidationRecord | None = None

    def on_step(self, state: TrainingState, stage: Stage) -> None:
        """A line, where nothing has been said for long."""
        wait = _SECONDS_TO_FIRST_LINE if self._last is None else _SECONDS_WITHIN_AN_EPOCH
        if self._pace.seconds - (self._last or 0) < wait:
            return
        step, steps = state.step_of_epoch, self._plan.batch_plan.steps
        where = f"step {step} of {steps} of {_epoch(self._plan, stage, state.epoch + 1, state.stage_epoch + 1)}"
        self._say(where, state, state.gathered.epoch.terms())

    def on_fetch(self, state: TrainingState) -> None:
        """How long it will take, once after some steps."""
        if self._expectation_is_said or self._pace.steps < _STEPS_UNTIL_EXPECTATION:
            return
        per_step, left = self._pace.seconds_per_step, self._plan.total_steps - state.step
        if per_step is None or left <= 0:
            return
        self._expectation_is_said = True
        known = "as the first took" if "validation" in self._pace.interludes else "not counted"
        self._log.say(
            f"after {self._pace.steps} steps: {per_step:.3g} s for each, {left:,} are left: {self._left(state)}, "
            f"validations {known}"
        )

    def on_validation(self, record: ValidationRecord) -> None:
        """Keep it for the next line."""
        self._validation = record

    def on_stage_validation(self, record: ValidationRecord) -> None:
        """A line of its own."""
        self._log.say(f"end of {record.stage}: {_by_region(record)}, mean of {len(record.dice)} subsets")

    def on_epoch(
        self,
        state: TrainingState,
        stage: Stage,
        terms: Mapping[str, float | None],
        best: ValidationRecord | None,
        *,
        is_last: bool,
    ) -> None:
        """A line, unless the last was just now.

        Args:
            state: after the epoch.
            stage: that it was of.
            terms: of its steps.
            best: validation of the run, None before the first.
            is_last: whether the stage ends with it.
        """
        seconds = self._pace.mark().seconds - self._epoch_mark.seconds
        self._epoch_mark = self._pace.mark()
        if self._last is None or is_last or self._pace.seconds - self._last >= _SECONDS_BETWEEN_EPOCHS:
            where = _epoch(self._plan, stage, state.epoch, state.stage_epoch)
            self._say(where, state, terms, f"{seconds:.1f} s", *self._validated(best))

    def _validated(self, best: ValidationRecord | None) -> list[str]:
        parts = []
        if self._validation is not None:
            parts.append(f"validation after epoch {self._validation.epoch} {_by_region(self._validation)}")
            self._validation = None
        if best is not None and best.mean_dice is not None:
            parts.append(f"best mean {_percent(best.mean_dice)} after epoch {best.epoch}")
        return parts

    def _say(self, where: str, state: TrainingState, terms: Mapping[str, float | None], *parts: str) -> None:
        assert state.update is not None
        samples = self._pace.steps_per_second(self._mark) * self._plan.batch_plan.batch_size
        left = self._left(state)
        line = [
            f"{where}: {_losses(terms)}",
            f"learning rate {state.update.learning_rate:.3g}",
            *parts[:1],
            f"{samples:.3g} samples/s",
            f"{peak_memory_bytes(self._plan.device) / 1e9:.3g} GB",
            *parts[1:],
            *([] if left is None else [left]),
        ]
        self._log.say(", ".join(line))
        self._last, self._mark = self._pace.seconds, self._pace.mark()

    def _left(self, state: TrainingState) -> str | None:
        """Time and end, such as "about 3 h 20 min left, until Mon 30 Nov 15:40"."""
        interludes = self._plan.interludes_left(state.epoch, state.stage)
        seconds = self._pace.seconds_left(self._plan.total_steps - state.step, interludes)
        if seconds is None:
            return None
        end = self._plan.clock.now() + timedelta(seconds=seconds)
        return f"about {duration(seconds)} left, until {end:%a %d %b %H:%M}"


def _epoch(plan: TrainingPlan, stage: Stage, epoch: int, stage_epoch: int) -> str:
    total = sum(other.epochs for other in plan.stages)
    if len(plan.stages) == 1:
        return f"epoch {epoch} of {total}"
    return f"epoch {epoch} of {total} ({stage.name}, {stage_epoch} of {stage.epochs})"


def _losses(terms: Mapping[str, float | None]) -> str:
    total = terms["total"]
    if total is None:
        return "no finite loss yet"
    # A network without a term, or a stage, reports 0.
    others = [f"{name} {value:.3g}" for name, value in terms.items() if name != "total" and value]
    return f"loss {total:.4g}" + (f" ({', '.join(others)})" if others else "")


def _by_region(record: ValidationRecord) -> str:
    return "Dice " + " ".join(f"{region} {_percent(record.region_mean(region))}" for region in REGIONS)


def _percent(dice: float | None) -> str:
    return "-" if dice is None else f"{100 * dice:.1f}"
