"""How far a training with a deadline is, and how fast."""

from __future__ import annotations

import time


class Pace:
    """Counts steps against a clock and, if there is one, a number of steps.

    Args:
        end: when to stop, by `time.monotonic`.
        steps: after which to stop before that; None: as many as there is time for.
        warm_up_steps: the first ones, which the speed leaves out.

    Attributes:
        step: how many are finished.

    Raises:
        ValueError: the time is over already.
    """

    def __init__(self, end: float, steps: int | None, warm_up_steps: int) -> None:
        self._start = self._last = time.monotonic()
        self._end, self._steps, self._warm_up_steps = end, steps, warm_up_steps
        if self._start >= end:
            raise ValueError(f"--minutes: are over {self._start - end:.0f} seconds before the first step, need more")
        self._last_seconds = 0.0
        self._warm: float | None = None
        self.step = 0

    def count(self) -> None:
        """A step is finished, for the host at least."""
        now = time.monotonic()
        self._last, self._last_seconds = now, now - self._last
        self.step += 1

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    @property
    def share(self) -> float:
        """Of the time or the steps, whichever ends sooner, that is used up, from 0 to 1."""
        of_time = self.seconds / (self._end - self._start)
        of_steps = 0.0 if self._steps is None else self.step / self._steps
        return min(max(of_time, of_steps), 1.0)

    @property
    def is_over(self) -> bool:
        """Whether one more step would be too many, or too late if it takes as long as the last one."""
        return self.step == self._steps or time.monotonic() + self._last_seconds >= self._end

    @property
    def ends_warm_up(self) -> bool:
        """Whether the last step was the last one of the warm-up."""
        return self.step == self._warm_up_steps

    def end_warm_up(self) -> None:
        """Measure the speed from here on; the device has to be waited for before."""
        self._warm = time.monotonic()

    @property
    def steps_per_second(self) -> float | None:
        """After the warm-up; None in it. The device has to be waited for before."""
        measured = self.step - self._warm_up_steps
        return None if self._warm is None or measured < 1 else measured / (time.monotonic() - self._warm)
