"""One process at a time works in a run folder."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gss_train.common.errors import UserError
from gss_train.runs.lock import locked

# Locks a folder, and starts two processes that live on: one forked, as loader workers are, and one that runs a program
# and was given all open files.
HOLDER = """
import os, subprocess, sys, time
from pathlib import Path
from gss_train.runs.lock import locked
with locked(Path(sys.argv[1])):
    program = subprocess.Popen(["sleep", "60"], close_fds=False)
    forked = os.fork()
    if forked == 0:
        print(os.getppid(), os.getpid(), program.pid, flush=True)
    time.sleep(60)
"""


def refused(folder: Path) -> str:
    """What is said to a second process."""
    with pytest.raises(UserError) as caught, locked(folder):
        pass
    return str(caught.value)


def test_a_second_opening_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    for _ in range(2):
        with locked(tmp_path):
            for _ in range(2):  # and the refused one has not opened the folder to others
                assert refused(tmp_path).startswith(f"--output: {tmp_path} is in use by {holder}; wait")


def test_the_holder_before_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text(f"process {os.getpid()}123 on a-host-with-a-long-name.{socket.gethostname()}\n")
    with locked(tmp_path):
        assert f"in use by process {os.getpid()} on {socket.gethostname()}; wait" in refused(tmp_path)


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    assert f"--output: {tmp_path} cannot be locked against a second process: No locks" in refused(tmp_path)


def test_a_killed_process_frees_its_folder_though_its_children_live_on(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        holder, *children = (int(word) for word in process.stdout.readline().split())
        try:
            assert f"in use by process {holder} on {socket.gethostname()};" in refused(tmp_path)
            process.kill()
            process.wait()
            with locked(tmp_path):
                for child in children:
                    os.kill(child, 0)
        finally:
            process.kill()
            for child in children:
                os.kill(child, signal.SIGKILL)
