"""The folder that a run leaves behind."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import math
import os
import platform
import re
import socket
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from gss_train.common import UserError, open_replacing, remove, sync_folder

_PACKAGES = (
    "gss",
    "torch",
    "triton",
    "numpy",
    "scipy",
    "nibabel",
    "SimpleITK",
    "nilearn",
    "matplotlib",
    "tensorboard",
    "tyro",
    "rich",
)
_CONFIG, _LOCK, _METRICS, _TABLE = "config.json", "run.lock", "metrics.jsonl", "subsets.md"
# Killed before its settings were written, a run has left none but these.
_FIRST_FILES = {"environment.json", "dataset.json", "split.json", "left_out.json", _CONFIG}
# Of `open_replacing`, whose writer was killed.
_PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9]+@.+\.partial")


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
        names = {entry.name for entry in path.iterdir()} - {_LOCK}
        if not names or (resume and (_CONFIG in names or _is_hardly_begun(names))):
            return
    what = "exists and is not an empty folder" + (" or that of a run" if resume else "")
    raise UserError(f"--output: {path} {what}; name another one")


def old_config(path: Path) -> dict[str, Any] | None:
    """The settings of the run in a folder, as JSON values; None if there is none.

    Raises:
        UserError: they cannot be read.
    """
    return read_json(path / _CONFIG) if (path / _CONFIG).exists() else None


def is_finished(path: Path) -> bool:
    """Whether the run in a folder has come to its end."""
    return (path / _TABLE).exists()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a run has written.

    Raises:
        UserError: it cannot be read; the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read, need the JSON that the run has written: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, need a JSON object")
    return content


def _is_hardly_begun(names: set[str]) -> bool:
    return {_PARTIAL.sub(r"\g<name>", name) for name in names} <= _FIRST_FILES


class RunFolder:
    """Writes what a run produces, and keeps other processes out of it; made by `open`.

    Attributes:
        path: of the folder.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock
        self._metrics: FileIO | None = None

    @classmethod
    def open(cls, path: Path, *, resume: bool) -> Self:
        """Make the folder, if it is not there, and lock it until `close` or the end of the process.

        Args:
            path: of the folder.
            resume: whether a run that is there may be gone on with.

        Raises:
            UserError: it is not free, see `check_output`, or another process works in it.
        """
        check_output(path, resume=resume)
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path, _take_lock(path))
        try:
            # Another process may have been in between.
            check_output(path, resume=resume)
            folder._remove_partials()
        except BaseException:
            folder.close()
            raise
        return folder

    def _remove_partials(self) -> None:
        """Whoever wrote them is dead, on this machine or another one: the lock is held here."""
        own = (self.path, self.checkpoints, self.figures, self.bad_steps, self.evaluation, self.evaluation / "subjects")
        for folder in own:
            for path in folder.glob(".*.partial"):
                if _PARTIAL.fullmatch(path.name):
                    remove(path)

    def close(self) -> None:
        """Let others in."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if self._lock is not None:
            _release_lock(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def old_config(self) -> dict[str, Any] | None:
        """The settings of the run that is there, as JSON values; None for a new one."""
        return old_config(self.path)

    @property
    def is_finished(self) -> bool:
        """Whether the run that is there has come to its end."""
        return is_finished(self.path)

    @property
    def metrics(self) -> Path:
        """What the run has noted, one JSON object on a line."""
        return self.path / _METRICS

    @property
    def checkpoints(self) -> Path:
        """The folder of the last checkpoints, and of the best."""
        return self.path / "checkpoints"

    def stage_checkpoint(self, stage: str) -> Path:
        """The weights at the end of a stage, such as `gss-round-1.pt`."""
        return self.path / f"{stage.lower().replace(' ', '-')}.pt"

    @property
    def figures(self) -> Path:
        """The folder of pictures."""
        return self.path / "figures"

    def epoch_figure(self, epoch: int) -> Path:
        """The picture of an epoch, 1 for the first."""
        return self.figures / f"epoch-{epoch:04d}.png"

    @property
    def summary(self) -> Path:
        """The picture of the run."""
        return self.path / "summary.png"

    @property
    def evaluation(self) -> Path:
        """The folder of the scores on the test subjects."""
        return self.path / "evaluation"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's files."""
        return self.path / "tensorboard"

    @property
    def bad_steps(self) -> Path:
        """The folder of batches with bad numbers."""
        return self.path / "bad-steps"

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
        """Append one line to `metrics.jsonl`; a number that is not finite becomes null, as JSON has none.

        Raises:
            OSError: it cannot be written; the file ends with the line before.
        """
        rest = memoryview((json.dumps(_json_value(record), allow_nan=False) + "\n").encode())
        file = self._open_metrics()
        length = os.fstat(file.fileno()).st_size
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            file.truncate(length)
            raise OSError(f"{self.metrics}: cannot be written: {error.strerror}") from error

    def metrics_length(self) -> int:
        """Bytes of `metrics.jsonl`, once they are on the disk."""
        file = self._open_metrics()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size

    def cut_metrics(self, length: int) -> None:
        """Bring `metrics.jsonl` back to a length that it had.

        Args:
            length: in bytes, of `metrics_length`.

        Raises:
            UserError: it is shorter, or has no end of a line there.
        """
        file = self._open_metrics()
        found = os.fstat(file.fileno()).st_size
        if found < length:
            raise UserError(f"{self.metrics}: has {found} bytes, had {length} at the checkpoint: it was changed")
        if length and os.pread(file.fileno(), 1, length - 1) != b"\n":
            raise UserError(
                f"{self.metrics}: has no line that ends at byte {length}, as at the checkpoint: it was changed"
            )
        file.truncate(length)
        os.fsync(file.fileno())

    def _open_metrics(self) -> FileIO:
        if self._lock is None:
            raise ValueError(f"{self.path}: is closed")
        if self._metrics is None:
            is_new = not self.metrics.exists()
            # Unbuffered: a line is in the file, or not, and nothing is left over for forked processes to write.
            self._metrics = self.metrics.open("a+b", buffering=0)
            if is_new:
                sync_folder(self.path)
        return self._metrics


_held_locks: set[int] = set()


def _take_lock(path: Path) -> int:
    """Lock the folder.

    Returns:
        What keeps the lock until it is closed, or the process ends in whatever way.

    Raises:
        UserError: another process has it, or the file system has no locks.
    """
    # Of the open file, not of the process: a second opening in this one is refused as well.
    descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except BlockingIOError as error:
        holder = os.read(descriptor, 1000).decode(errors="replace").strip() or "an unknown process"
        os.close(descriptor)
        raise UserError(f"--output: {path} is in use by {holder}; wait until it ends, or name another one") from error
    except OSError as error:
        os.close(descriptor)
        raise UserError(
            f"--output: {path} cannot be locked against a second process: {error.strerror}; name a folder on another "
            "file system"
        ) from error
    _held_locks.add(descriptor)
    return descriptor


def _release_lock(descriptor: int) -> None:
    if descriptor in _held_locks:
        _held_locks.remove(descriptor)
        os.close(descriptor)


def _leave_locks_to_the_parent() -> None:
    """Loader processes may outlive a killed trainer by a moment, and would keep its lock.

    Closing does not unlock what the parent still has open.
    """
    for descriptor in tuple(_held_locks):
        _release_lock(descriptor)


os.register_at_fork(after_in_child=_leave_locks_to_the_parent)


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, processor and GPU, as JSON values."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": versions,
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cuda": torch.version.cuda,
        "processor": platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
