"""Writes a run's checkpoints beside its training, every so many minutes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

from torch import Tensor

from gss_train.common import Clock
from gss_train.runs import CheckpointStore, save_checkpoint


class CheckpointWriter:
    """Writes what it is given in a thread: the training waits for copies of its tensors, not for the disk.

    What went wrong there is raised by whatever is called next.

    Args:
        store: of the run.
        minutes: from one checkpoint to the next; 0 writes one after each epoch.
        clock: by which these go.
    """

    def __init__(self, store: CheckpointStore, minutes: float, clock: Clock) -> None:
        self._store = store
        self._seconds = 60 * minutes
        self._clock = clock
        self._last = clock.seconds()
        self._held: dict[Path, dict[str, Any]] = {}
        self._best: tuple[int, dict[str, Any]] | None = None
        self._thread: Thread | None = None
        self._error: Exception | None = None

    def is_due(self, *, epoch_ended: bool, stretch: float = 1.0) -> bool:
        """Whether it is time for a checkpoint, and the one before is on the disk.

        Args:
            epoch_ended: whether the last step was that of an epoch.
            stretch: what the minutes are multiplied by.

        Raises:
            OSError: the one before could not be written.
        """
        if self._seconds == 0:
            self.wait()
            return epoch_ended
        if self._thread is not None:
            if self._thread.is_alive():
                return False
            self.wait()
        return self._clock.seconds() - self._last >= stretch * self._seconds

    def keep(self, path: Path, content: Mapping[str, Any]) -> None:
        """Take a copy of what is to be at a path before the next checkpoint is written."""
        self._held[path] = _copy(content)

    def keep_best(self, step: int, content: Mapping[str, Any]) -> None:
        """Take a copy of the best weights, in place of earlier ones, to be written with the next checkpoint.

        A run that is killed before goes on from the checkpoint before, which knows of them as little.

        Args:
            step: that they are of.
            content: see `gss_train.runs.save_checkpoint`.
        """
        self._best = step, _copy(content)

    def save(self, step: int, content: Mapping[str, Any]) -> None:
        """Take a copy of a checkpoint, and begin to write it and what is kept; one that is being written goes first.

        Raises:
            OSError: the one before could not be written.
        """
        copied = _copy(content)
        self.wait()
        held, self._held = self._held, {}
        best, self._best = self._best, None
        # A second Ctrl-C ends the process: it does not wait for this thread.
        self._thread = Thread(target=self._write, args=(held, best, step, copied), daemon=True)
        self._thread.start()
        self._last = self._clock.seconds()

    def _write(
        self,
        held: Mapping[Path, dict[str, Any]],
        best: tuple[int, dict[str, Any]] | None,
        step: int,
        content: dict[str, Any],
    ) -> None:
        try:
            for path, own in held.items():
                save_checkpoint(path, own)
            # Last: a run that goes on from it has everything from before.
            self._store.save(step, content, best)
        except Exception as error:  # whatever it is: the training raises it
            self._error = error

    def wait(self) -> None:
        """Until what was given is on the disk.

        Raises:
            OSError: it could not be written; what was there before still is.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error


def _copy(value: Any) -> Any:
    """Plain values and tensors, which training changes in place, copied to the host's memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(item) for item in value)
    return value
