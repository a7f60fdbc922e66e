"""The checkpoints of a run: the last ones, and the best."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gss_train.common import open_replacing, remove, sync_folder
from gss_train.runs.checkpoint_file import CheckpointError, read_own_checkpoint, save_checkpoint

_NAME = re.compile(r"step-([0-9]{8,})\.pt")
_BEST = "best.pt"
_LINK = ".best.pt.link"


class CheckpointStore:
    """Checkpoints by the steps that a run had taken, `step-00000150.pt`.

    One process at a time may write to it; see `gss_train.runs.folder.RunFolder`.

    Args:
        folder: that they lie in; made when the first is saved.
        keep: how many of the last ones stay, at least 1.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        if keep < 1:
            raise ValueError(f"keep: got {keep}, need 1 or more")
        self.folder = folder
        self.keep = keep

    @property
    def has_any(self) -> bool:
        """Whether there is one, damaged or not."""
        return bool(self._steps())

    def save(self, step: int, content: Mapping[str, Any]) -> Path:
        """Write a checkpoint; only then those that are no longer among the last are removed, see `tidy`.

        Args:
            step: steps that the run has taken.
            content: see `save_checkpoint`.

        Raises:
            OSError: it cannot be written, and those before are still there; or an old one cannot be removed.
        """
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            sync_folder(self.folder.parent)
        path = self._path(step)
        save_checkpoint(path, content)
        # They were damaged, or the run would have gone on from them.
        for later in [other for other in self._steps() if other > step]:
            remove(self._path(later))
        self.tidy(step)
        return path

    def tidy(self, step: int) -> None:
        """Remove those that are no longer among the last, and what a killed `mark_best` left.

        A run that goes on from a checkpoint does it too: it may have been killed before it could.

        Args:
            step: of the checkpoint that the run is at.

        Raises:
            OSError: a file cannot be removed.
        """
        for old in [other for other in self._steps() if other <= step][: -self.keep]:
            remove(self._path(old))
        remove(self.folder / _LINK)

    def mark_best(self, step: int) -> None:
        """`best.pt` becomes the checkpoint of that step, and stays when it is no longer among the last.

        Raises:
            OSError: there is none of that step, or the folder cannot be written; `best.pt` is what it was.
        """
        path, best, link = self._path(step), self.folder / _BEST, self.folder / _LINK
        remove(link)
        try:
            os.link(path, link)
        except OSError:
            # There are file systems without links.
            with path.open("rb") as source, open_replacing(best) as file:
                shutil.copyfileobj(source, file)
            return
        try:
            link.replace(best)
            sync_folder(self.folder)
        finally:
            # Where both names are of one file already, replacing is doing nothing.
            remove(link)

    def newest(self, announce: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest checkpoint that can be read, None if there is no file at all.

        Args:
            announce: is told of each that cannot be read, and why.

        Raises:
            CheckpointError: there are files, and none can be read.
        """
        steps = self._steps()
        for step in reversed(steps):
            try:
                return read_own_checkpoint(self._path(step))
            except CheckpointError as error:
                announce(f"Damaged checkpoint, trying the one before: {error}")
        if steps:
            raise CheckpointError(
                f"{self.folder}: none of its {len(steps)} checkpoints can be read; remove them to begin again, or name "
                "another --output"
            )
        return None

    def _steps(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match is not None)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.pt"
