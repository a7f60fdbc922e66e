"""Checkpoints: written so that a crash leaves the old one, read without executing what is in them, kept for a run."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from gss_train.common import UserError, open_replacing, remove, sync_folder

_FORMAT = "gss-checkpoint-2"
_CHUNK_BYTES = 1 << 20
_ZIP_BEGIN = b"PK\x03\x04"
_FOLDER_ATTRIBUTE = 0x10
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_CANDIDATES = "best-*.pt"
_NAME = re.compile(r"step-([0-9]{8,})\.pt")


class CheckpointError(UserError):
    """A checkpoint cannot be used; the message names the file."""


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values to `path`, replacing it at once or not at all.

    Args:
        path: in a folder that exists, or can be made.
        content: of a run's state: "weights", "progress" and more. A file of another kind has its own "format".

    Raises:
        OSError: the file cannot be written, it is named; the old one is still there.
    """
    with open_replacing(path) as file:
        try:
            with _checksums():
                torch.save({"format": _FORMAT, **content}, file)
        except RuntimeError as error:
            # PyTorch's writer hides the system's error behind one of its own.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this software or of the published networks, onto the CPU.

    Nothing in the file is executed: apart from tensors and plain values, only the NumPy scalar (the learning rate)
    that the published checkpoints hold is let in.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything else.
    """
    try:
        _refuse_damage(path)
        with torch.serialization.safe_globals(_numpy_scalar_globals()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file, need a checkpoint") from error
    except MemoryError:
        raise
    except Exception as error:  # the readers raise all kinds on files that are cut, altered, or no checkpoints
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint of weights: {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, need a dictionary of weights")
    return content


def read_own_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything else, such as published weights.
    """
    content = read_checkpoint(path)
    if content.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: its format is {content.get('format')!r}, need {_FORMAT!r}")
    return content


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
    def best(self) -> Path:
        """Where the weights of the best validation lie; not one of the checkpoints that a run goes on from."""
        return self.folder / "best.pt"

    @property
    def has_any(self) -> bool:
        """Whether there is one, damaged or not."""
        return bool(self._steps())

    def save(self, step: int, content: Mapping[str, Any], best: tuple[int, Mapping[str, Any]] | None = None) -> Path:
        """Write a checkpoint; only then those that are no longer among the last are removed, see `tidy`.

        Args:
            step: steps that the run has taken.
            content: see `save_checkpoint`.
            best: what becomes `best.pt` with it, and the step that it is of, which `content` has to tell; None: that
                stays what it is.

        Raises:
            OSError: it cannot be written, and those before are still there; or an old one cannot be removed.
        """
        self._make_folder()
        path = self._path(step)
        if best is not None:
            save_checkpoint(self._candidate(best[0]), best[1])
        save_checkpoint(path, content)
        # They were damaged, or the run would have gone on from them.
        for later in [other for other in self._steps() if other > step]:
            remove(self._path(later))
        self.tidy(step)
        if best is not None:
            self.settle_best(best[0])
        return path

    def settle_best(self, step: int | None) -> None:
        """`best.pt` becomes what was written for that step, if it is not yet; what was for others is removed.

        A run that goes on from a checkpoint does it too: it may have been killed before it could.

        Args:
            step: of the best weights, by the checkpoint that the run is at.

        Raises:
            OSError: a file cannot be renamed or removed.
        """
        for path in self.folder.glob(_CANDIDATES):
            if step is not None and path == self._candidate(step):
                path.replace(self.best)
                sync_folder(self.folder)
            else:
                remove(path)

    def _make_folder(self) -> None:
        """With its name on the disk."""
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            sync_folder(self.folder.parent)

    def tidy(self, step: int) -> None:
        """Remove those that are no longer among the last.

        A run that goes on from a checkpoint does it too: it may have been killed before it could.

        Args:
            step: of the checkpoint that the run is at.

        Raises:
            OSError: a file cannot be removed.
        """
        for old in [other for other in self._steps() if other <= step][: -self.keep]:
            remove(self._path(old))

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

    def _candidate(self, step: int) -> Path:
        return self.folder / f"best-{step:08d}.pt"


def _refuse_damage(path: Path) -> None:
    """PyTorch's reader does not compare the checksums that its writer has put in.

    Published files may have none that are right, in no part: see `torch.serialization.set_crc32_options`.
    """
    with path.open("rb") as file:
        if file.read(len(_ZIP_BEGIN)) != _ZIP_BEGIN:
            return
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        damaged = [part.filename for part in parts if not _is_whole(archive, part)]
    if damaged and len(damaged) < len(parts):
        raise ValueError(f"its part {damaged[0]} does not fit its checksum")


def _is_whole(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    # PyTorch's reader leaves the tensors of a part that seems to be a folder as the memory was.
    if part.external_attr & _FOLDER_ATTRIBUTE:
        return False
    # It knows no other compression, whose readers in Python raise errors of their own.
    if part.compress_type not in _COMPRESSIONS:
        return False
    try:
        with archive.open(part) as file:
            while file.read(_CHUNK_BYTES):
                pass
    except zipfile.BadZipFile:
        return False
    return True


@contextmanager
def _checksums() -> Iterator[None]:
    """PyTorch's writer computes them, whatever it was told to do in other files."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def _numpy_scalar_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    scalar = cast("Callable[..., Any]", np.float64(0).__reduce__()[0])
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        type(np.dtype(np.float32)),
        type(np.dtype(np.float64)),
    ]
