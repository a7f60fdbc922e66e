"""Keeps a second process out of a run folder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gss_train.common import UserError

LOCK = "run.lock"
_held: set[int] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder locked; the end of the process, in whatever way, unlocks it too.

    Raises:
        UserError: another process has locked it, or the file system has no locks.
    """
    # The lock is that of the open file, not of the process: a second opening in this one is refused as well.
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _held.add(descriptor)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        _close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except BlockingIOError as error:
        holder = os.read(descriptor, 1000).decode(errors="replace").strip() or "an unknown process"
        raise UserError(f"--output: {folder} is in use by {holder}; wait until it ends, or name another one") from error
    except OSError as error:
        raise UserError(
            f"--output: {folder} cannot be locked against a second process: {error.strerror}; name a folder on "
            "another file system"
        ) from error


def _close(descriptor: int) -> None:
    if descriptor in _held:
        _held.remove(descriptor)
        os.close(descriptor)


def _leave_locks_to_the_parent() -> None:
    """Loader processes may outlive a killed trainer by a moment, and would keep its lock.

    Closing does not unlock what the parent still has open.
    """
    for descriptor in tuple(_held):
        _close(descriptor)


os.register_at_fork(after_in_child=_leave_locks_to_the_parent)
