"""The index of a folder of prepared subjects: the files that the preparation made there, and who needs them.

A line names a file before it is made. Who reads or writes the files shares a lock of the index; who deletes them needs
it alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from gss_train.common import UserError, final_name, sync_folder, writing
from gss_train.data.grids import Spacing, to_spacing
from gss_train.data.prepared import Recipe

_INDEX = "index.jsonl"
_PLAIN_NAME = re.compile(r"[^/\\\0\n]+\.(npy|json)")


class InUseError(UserError):
    """Another process needs the files of a folder, or deletes them; the message names it."""


@dataclass(frozen=True)
class IndexedFile:
    """A file that the preparation made, or was about to make.

    Attributes:
        name: in the folder of the index.
        dataset: name of the edition.
        spacing: voxel size in millimetres that scans and label were brought to; None: that which they have.
        released_box: whether the box is that of the authors' public preparation.
        version: of the preparation.
    """

    name: str
    dataset: str
    spacing: Spacing | None
    released_box: bool
    version: int


def add_to_index(folder: Path, names: Sequence[str], recipe: Recipe) -> None:
    """Names files that are about to be made; on the disk when this returns.

    Args:
        folder: of the files; made when missing.
        names: of the files, without their folder.
        recipe: of all of them.

    Raises:
        OSError: the index cannot be written; the message names it.
    """
    if not names:
        return
    files = [IndexedFile(name, recipe.dataset, recipe.spacing, recipe.released_box, recipe.version) for name in names]
    lines = [f"{json.dumps(asdict(file))}\n".encode() for file in files]
    path = folder / _INDEX
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        with _one_writer(folder), path.open("a+b") as file:
            file.seek(0)
            text = file.read()
            known = text.splitlines(keepends=True)
            if known and not known[-1].endswith(b"\n"):
                # What a killed process left; it had made none of its files.
                file.truncate(len(text) - len(known.pop()))
            file.write(b"".join(sorted(set(lines) - set(known))))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)


def is_indexed(folder: Path) -> bool:
    """Whether a folder has an index."""
    path = folder / _INDEX
    return path.is_file() and not path.is_symlink()


def read_index(folder: Path) -> list[IndexedFile]:
    """Reads which files the preparation made in a folder, or was about to make.

    Raises:
        UserError: a line cannot be understood, or names a file elsewhere; the message gives file and line.
    """
    path = folder / _INDEX
    # What follows the last line's end is left of a killed process, which had made none of its files.
    *lines, _ = path.read_bytes().split(b"\n")
    files = {}
    for number, line in enumerate(lines, start=1):
        try:
            file = _parse(line)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: {error}; the index is damaged, and nothing in its folder is deleted: look at "
                "the files there and delete them by hand"
            ) from error
        files[file.name] = file
    return list(files.values())


def indexed_files(folder: Path) -> list[Path]:
    """Finds the files that the index of a folder names, or the unfinished forms of them, and that lie there as files.

    Raises:
        UserError: see `read_index`.
    """
    names = {file.name for file in read_index(folder)}
    found = (path for path in folder.iterdir() if final_name(path.name) in names)
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def delete_indexed(folder: Path) -> list[str]:
    """Deletes the files of `indexed_files`, then the index, then the folder if nothing is left there.

    Returns:
        The names of what is left.

    Raises:
        InUseError: somebody has the folder `in_use`; nothing is deleted.
        UserError: see `read_index`, or the file system has no locks; nothing is deleted.
        OSError: a file cannot be deleted.
    """
    with _locked(folder, fcntl.LOCK_EX):
        for path in indexed_files(folder):
            path.unlink(missing_ok=True)
        (folder / _INDEX).unlink()
        left = sorted(path.name for path in folder.iterdir())
        if not left:
            # A link to a folder stays.
            with suppress(NotADirectoryError):
                folder.rmdir()
    return left


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keeps the files of a folder from `delete_indexed`; the end of the process, in whatever way, ends that too.

    Args:
        folder: made when missing, with an index.

    Raises:
        InUseError: its files are being deleted.
        OSError: there is no index and none can be made; the message names it.
    """
    with writing(folder / _INDEX):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, fcntl.LOCK_SH):
        yield


def _parse(line: bytes) -> IndexedFile:
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise TypeError(f"is {fields!r}, should be an object that names a file")
    file = IndexedFile(**fields)
    for value, kind in ((file.name, str), (file.dataset, str), (file.released_box, bool), (file.version, int)):
        if not isinstance(value, kind):
            raise TypeError(f"has {value!r}, should be of type {kind.__name__}")
    if not _PLAIN_NAME.fullmatch(file.name):
        raise ValueError(f"names {file.name!r}, should name a .npy or .json file in its own folder")
    spacing = None if file.spacing is None else to_spacing(file.spacing)
    return IndexedFile(file.name, file.dataset, spacing, file.released_box, file.version)


@contextmanager
def _one_writer(folder: Path) -> Iterator[None]:
    """Waits until no other process writes the index, whose own lock belongs to those that need its files."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Where there are no locks, two commands that begin at once may damage it, which says so and deletes nothing.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _locked(folder: Path, operation: int) -> Iterator[None]:
    with writing(folder / _INDEX):
        descriptor = _open_locked(folder, operation)
    try:
        yield
    finally:
        # Loader processes have it open as well, and need the files as long as they live.
        os.close(descriptor)


def _open_locked(folder: Path, operation: int) -> int:
    path, alone = folder / _INDEX, operation == fcntl.LOCK_EX
    while True:
        # Reading is enough to share a lock, also in a folder that cannot be written.
        flags = os.O_RDWR if alone else os.O_RDONLY | os.O_CREAT
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            problem = "a training or an evaluation needs its files" if alone else "its files are being deleted"
            raise InUseError(f"{folder} is in use: {problem}; wait until that ends") from error
        except OSError as error:
            if alone:
                os.close(descriptor)
                raise UserError(f"{folder} cannot be locked ({error.strerror}): delete its files by hand") from error
            # Nobody can have it alone.
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        # It was deleted since it was opened.
        os.close(descriptor)
