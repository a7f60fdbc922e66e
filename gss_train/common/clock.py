"""What time it is, for whatever decides by it: a test hands in one in which days pass at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Clock:
    """A clock.

    Attributes:
        seconds: since some moment; never goes back.
        now: date and time of day where the machine is.
    """

    seconds: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = datetime.now


CLOCK = Clock()
"""The machine's."""


def duration(seconds: float) -> str:
    """A time as people say it, such as "3 h 20 min" or "45 s"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
