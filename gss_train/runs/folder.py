"""The folder that a run leaves behind: whether there is a run, how far it is, how its files are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from gss_train.common import UserError, final_name, open_replacing, remove_stale_partials
from gss_train.config import CONFIG_FILE, ENVIRONMENT_FILE, Config, refuse_changes
from gss_train.runs.checkpoints import CheckpointStore
from gss_train.runs.lock import LOCK, locked
from gss_train.runs.records import MetricsLog
from gss_train.runs.stored import CHECKPOINTS_FOLDER, DATASET_FILE, SPLIT_FILE, old_config, read_json

# The last file that a run writes.
_FINISHED_MARK = "subsets.md"
# Killed before its settings were written, a run has left none but these.
_FIRST_FILES = {ENVIRONMENT_FILE, DATASET_FILE, SPLIT_FILE, "left_out.json", CONFIG_FILE}


def check_output(path: Path, *, resume: bool) -> None:
    """Refuse a folder in which a run can neither begin nor go on, so that nothing is overwritten.

    Args:
        path: of the run folder to be.
        resume: whether a run that is there may be gone on with.

    Raises:
        UserError: it is a file, or holds something else, or a run that is not to be gone on with.
    """
    if not path.exists():
        return
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()} - {LOCK}
        if not names or (resume and (CONFIG_FILE in names or set(map(final_name, names)) <= _FIRST_FILES)):
            return
    what = "exists and is not an empty folder" + (" or that of a run" if resume else "")
    raise UserError(f"--output: {path} {what}; name another one")


def refuse_other_settings(config: Config, output: Path) -> None:
    """Refuse to go on with the run in a folder, if there is one, under settings by which it would learn something else.

    Raises:
        UserError: settings differ, or those of the run cannot be read.
    """
    before = old_config(output)
    if before is not None:
        refuse_changes(before, config.to_json(), output / CONFIG_FILE)


RunStatus = Literal["new", "begun", "finished"]


def run_status(folder: Path) -> RunStatus:
    """How far the run in a folder is: without a checkpoint, with one to go on from, or at the end of its evaluation."""
    if (folder / _FINISHED_MARK).exists():
        return "finished"
    return "begun" if CheckpointStore(folder / CHECKPOINTS_FOLDER, keep=1).has_any else "new"


class RunFolder:
    """Writes what a run produces, and keeps other processes out of it; made by `open`.

    Attributes:
        path: of the folder.
        metrics: what the run has noted, one JSON object on a line.
        log: what it has said to people while it trained.
        checkpoints: the folder of the last checkpoints, and of the best.
        figures: the folder of pictures.
        summary: the picture of the run.
        tensorboard: the folder of TensorBoard's files.
        bad_steps: the folder of batches with bad numbers.
    """

    def __init__(self, path: Path, log: MetricsLog) -> None:
        self.path = path
        self.metrics = log.path
        self.log = path / "train.log"
        self.checkpoints = path / CHECKPOINTS_FOLDER
        self.figures = path / "figures"
        self.summary = path / "summary.png"
        self.tensorboard = path / "tensorboard"
        self.bad_steps = path / "bad-steps"
        self._log = log

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, resume: bool) -> Iterator[Self]:
        """Make the folder, if it is not there, and lock it until the context or the process ends.

        Args:
            path: of the folder.
            resume: whether a run that is there may be gone on with.

        Raises:
            UserError: it is not free, see `check_output`, or another process works in it.
        """
        check_output(path, resume=resume)
        path.mkdir(parents=True, exist_ok=True)
        with locked(path), closing(MetricsLog(path / "metrics.jsonl")) as log:
            # Another process may have been in between.
            check_output(path, resume=resume)
            folder = cls(path, log)
            # Whoever wrote what is there is dead, on this machine or another one.
            for part in (path, folder.checkpoints, folder.figures, folder.bad_steps):
                remove_stale_partials(part, locked=True)
            yield folder

    @property
    def old_config(self) -> dict[str, Any] | None:
        """The settings of the run that is there, as JSON values; None for a new one."""
        return old_config(self.path)

    def stage_checkpoint(self, stage: str) -> Path:
        """The weights at the end of a stage, such as `gss-round-1.pt`."""
        return self.path / f"{stage.lower().replace(' ', '-')}.pt"

    def epoch_figure(self, epoch: int) -> Path:
        """The picture of an epoch, 1 for the first."""
        return self.figures / f"epoch-{epoch:04d}.png"

    def write_json(self, name: str, content: object) -> None:
        """Write a JSON file, at once or not at all."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, at once or not at all."""
        with open_replacing(self.path / name) as file:
            file.write(text.encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object that was written here.

        Raises:
            UserError: it cannot be read.
        """
        return read_json(self.path / name)

    def log_metrics(self, record: dict[str, Any]) -> None:
        """Add a line to the metrics; see `MetricsLog.append`."""
        self._log.append(record)

    def metrics_length(self) -> int:
        """Bytes of the metrics, once they are on the disk."""
        return self._log.length()

    def cut_metrics(self, length: int) -> None:
        """Bring the metrics back to a length that they had; see `MetricsLog.cut`."""
        self._log.cut(length)
