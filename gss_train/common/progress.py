"""Progress for people: a bar with the time left on a terminal; elsewhere, as in the log of a job, few plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gss_train.common.clock import duration

_SHORTEST_SECONDS, _LONGEST_SECONDS = 60.0, 600.0
_SECONDS_REMEMBERED = 3600.0

Meter = Callable[..., None]
"""Shows how far some work is: takes the finished parts, all parts, and if wanted a note such as the current loss."""


@contextmanager
def show_progress(title: str, quiet: bool = False) -> Iterator[Meter]:
    """A meter for one piece of work.

    On a terminal it is a bar. Elsewhere the first and the last report are a line each, and in between one a minute at
    first; when the work takes hours, one in ten minutes.

    Args:
        title: says which work.
        quiet: whether to show nothing at all, as befits all but the first of several processes.
    """
    if quiet:
        yield _show_nothing
    elif sys.stdout.isatty():
        with _bar(title) as meter:
            yield meter
    else:
        lines = _Lines(title)
        try:
            yield lines
        finally:
            lines.finish()


def _show_nothing(done: int, total: int, note: str = "") -> None:
    """A meter for processes that keep quiet."""


@contextmanager
def _bar(title: str) -> Iterator[Meter]:
    from rich import progress as bars  # noqa: PLC0415  (for terminals alone)
    from rich.console import Console  # noqa: PLC0415

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[note]}"),
    )
    # Steps may be minutes apart: remember their speed for long.
    with bars.Progress(*columns, console=Console(), speed_estimate_period=_SECONDS_REMEMBERED) as progress:
        task = progress.add_task(title, total=None, note="")

        def meter(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield meter


class _Lines:
    def __init__(self, title: str) -> None:
        self.title = title
        self.start = time.monotonic()
        self.last_line: float | None = None
        self.done_before = 0
        self.unsaid: tuple[int, int, str] | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self.last_line is None:
            self.done_before = done
        elif now - self.last_line < min(max(_SHORTEST_SECONDS, (now - self.start) / 10), _LONGEST_SECONDS):
            self.unsaid = (done, total, note)
            return
        self.say(done, total, note)

    def say(self, done: int, total: int, note: str) -> None:
        self.last_line = time.monotonic()
        self.unsaid = None
        elapsed = self.last_line - self.start
        new = done - self.done_before
        left = f", about {duration(elapsed / new * (total - done))} left" if new > 0 and done < total else ""
        print(f"{self.title}: {done}/{total}{', ' + note if note else ''} ({duration(elapsed)}{left})", flush=True)

    def finish(self) -> None:
        if self.unsaid is not None:
            self.say(*self.unsaid)
