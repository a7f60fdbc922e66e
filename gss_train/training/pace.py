"""How fast a training goes, and how long the rest of it will take."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gss_train.common import Clock

Interlude = Literal["validation", "stage validation", "figure", "checkpoint"]
"""What a training stops its steps for."""

_SECONDS_REMEMBERED = 3600.0


class Mark(NamedTuple):
    """A moment of a training.

    Attributes:
        steps: taken until then.
        seconds: that went into them.
    """

    steps: int
    seconds: float


@dataclass
class Interludes:
    """All of one kind so far."""

    count: int = 0
    seconds: float = 0.0


class Pace:
    """Follows a training since it began, or went on: its steps, and what else took time.

    Attributes:
        steps: taken.
        interludes: by kind.
        seconds_before: that the run had trained for before it was stopped.

    Args:
        clock: by which it goes.
    """

    def __init__(self, clock: Clock) -> None:
        self.steps = 0
        self.interludes: dict[Interlude, Interludes] = {}
        self.seconds_before = 0.0
        self._clock = clock
        self._began = clock.seconds()
        self._marks: deque[Mark] = deque()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock.seconds() - self._began

    @property
    def seconds_of_run(self) -> float:
        """That it has trained for, before a stop and since."""
        return self.seconds_before + self.seconds

    def mark(self) -> Mark:
        """This moment."""
        return Mark(self.steps, self.seconds - sum(kind.seconds for kind in self.interludes.values()))

    def remember(self) -> None:
        """Take this moment, in which the device has done all steps, for one that later ones are compared with."""
        mark = self.mark()
        self._marks.append(mark)
        # One from before the last hour is left, so that there is one to compare with whatever a step takes.
        while len(self._marks) > 2 and self._marks[1].seconds < mark.seconds - _SECONDS_REMEMBERED:
            self._marks.popleft()

    def forget(self) -> None:
        """Steps take another time from here on."""
        self._marks.clear()

    @contextmanager
    def interlude(self, kind: Interlude) -> Iterator[None]:
        """What is done inside is no step."""
        began = self._clock.seconds()
        try:
            yield
        finally:
            all_of_kind = self.interludes.setdefault(kind, Interludes())
            all_of_kind.count += 1
            all_of_kind.seconds += self._clock.seconds() - began

    def steps_per_second(self, since: Mark) -> float:
        """From a moment until now."""
        steps, seconds = self.mark()
        return (steps - since.steps) / max(seconds - since.seconds, 1e-9)

    @property
    def seconds_per_step(self) -> float | None:
        """Over the last hour's steps, the first ones left out, which prepare the device; None before."""
        if len(self._marks) < 2:
            return None
        first, last = self._marks[0], self._marks[-1]
        return (last.seconds - first.seconds) / (last.steps - first.steps)

    def seconds_left(self, steps: int, interludes: Mapping[Interlude, int]) -> float | None:
        """What is expected for so many steps, and so many interludes as there were before; None where it is not known.

        Interludes of which there was none yet are not counted.
        """
        if self.seconds_per_step is None:
            return None
        known = {kind: self.interludes[kind] for kind in interludes if kind in self.interludes}
        rest = sum(interludes[kind] * past.seconds / past.count for kind, past in known.items())
        return steps * self.seconds_per_step + rest
