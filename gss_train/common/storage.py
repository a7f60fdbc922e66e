"""Writes files such that each is complete or not there, and clears away what killed processes left."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_PARTIAL = re.compile(r"\.(?P<name>.+)\.(?P<process>[0-9]+)@(?P<host>.+)\.partial")
_PARTIAL_LIFETIME_SECONDS = 24 * 3600.0


@contextmanager
def open_replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path`, which takes its name once everything is on the disk.

    Raises:
        OSError: the folder or file cannot be written; the message names both, and whatever stood at `path` still does.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}.partial")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                # Else a power cut could leave the new name with none of the content.
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        # It is there after a failure only, and then perhaps not at all.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Have errors of writing a file say which folder and file they are of, and what to do.

    Raises:
        OSError: in place of another one.
    """
    try:
        yield
    except OSError as error:
        raise OSError(_explain(path, error)) from error


def sync_folder(folder: Path) -> None:
    """Bring names to the disk that were made, changed or removed in a folder, where the system can do that.

    Raises:
        OSError: it could, but failed.
    """
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no such thing.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a file if it is there.

    Raises:
        OSError: it cannot be removed; the message names folder and file.
    """
    with writing(path):
        path.unlink(missing_ok=True)


def final_name(name: str) -> str:
    """The name that a temporary file of `open_replacing` was to take; any other name is its own."""
    match = _PARTIAL.fullmatch(name)
    return name if match is None else match["name"]


def remove_stale_partials(folder: Path, *, locked: bool = False) -> None:
    """Removes the temporary files of processes that ended before they could.

    Args:
        folder: that they are in.
        locked: whether nobody else can be writing there: then all of them go. Else those of other machines, whose
            processes cannot be seen from here, go when they are a day old.
    """
    for path in folder.glob(".*.partial"):
        match = _PARTIAL.fullmatch(path.name)
        # Another process may be quicker, or the folder read-only.
        with suppress(OSError):
            if match is not None and (locked or _is_stale(path, match["host"], int(match["process"]))):
                path.unlink()


def _is_stale(path: Path, host: str, process: int) -> bool:
    if time.time() - path.stat().st_mtime > _PARTIAL_LIFETIME_SECONDS:
        return True
    # Elsewhere than on POSIX systems, signal 0 is no harmless question.
    if host != socket.gethostname() or os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's, and alive
        return False
    return False


def _explain(path: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    try:
        free = f"; {shutil.disk_usage(path.parent).free / 1e6:.0f} MB are free there"
    except OSError:
        free = ""
    return (
        f"{path.parent}: cannot write {path.name} ({reason}){free}. Files written before are kept: make room or give "
        "write permission, or choose another folder, and start again"
    )
