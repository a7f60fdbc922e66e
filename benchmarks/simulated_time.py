"""A clock in which days pass at once."""

from __future__ import annotations

from datetime import datetime, timedelta

from gss_train.common import Clock

BEGAN = datetime(2027, 1, 1)


class SimulatedTime:
    """Stands still unless it is told to pass.

    Attributes:
        seconds: that have passed.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def pass_by(self, seconds: float) -> None:
        """So many."""
        self.seconds += seconds

    @property
    def clock(self) -> Clock:
        """For what goes by one."""
        return Clock(lambda: self.seconds, lambda: BEGAN + timedelta(seconds=self.seconds))
