"""Progress for people: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_REMEMBERED = 3600.0


class Meter(Protocol):
    """Shows how far some work is."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` parts are finished, with a note such as the current loss."""
        ...


@contextmanager
def show_progress(title: str) -> Iterator[Meter]:
    """A meter for one piece of work; `title` says which."""
    if sys.stdout.isatty():
        with _bar(title) as meter:
            yield meter
    else:
        yield _Lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Meter]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # Steps may be minutes apart: remember their speed for long.
    with Progress(*columns, console=Console(), speed_estimate_period=_SECONDS_REMEMBERED) as progress:
        task = progress.add_task(title, total=None, note="")

        def meter(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield meter


class _Lines:
    def __init__(self, title: str) -> None:
        self.title = title
        self.start = time.monotonic()
        self.last_line = self.start - _SECONDS_BETWEEN_LINES
        self.done_before: int | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self.done_before is None:
            self.done_before = done
        if done < total and now - self.last_line < _SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        elapsed = now - self.start
        new = done - self.done_before
        left = f", about {_duration(elapsed / new * (total - done))} left" if new and done < total else ""
        print(f"{self.title}: {done}/{total}{', ' + note if note else ''} ({_duration(elapsed)}{left})", flush=True)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
