"""One stage of a run: a process that is ended in time, and started again where it breaks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.lines import Lines, begun, of_kind, read

_ALL_PASSED, _SOME_FAILED, _NOTHING_LEFT = 0, 1, 5  # as pytest has it
_GRACE = 10.0
_POLL = 0.1
_LEAST_SECONDS = 3.0


@dataclass(frozen=True)
class Stage:
    """What is run.

    Attributes:
        name: in the records.
        command: of the process; `{until}` in it becomes the time, in seconds since 1970, to begin nothing after.
        seconds: after which it is ended.
        silence: seconds without a record after which it counts as hung: longer than any single benchmark takes.
        reserve: seconds before the end in which nothing begins.
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    silence: float = 90.0
    reserve: float = 5.0


class _Ending(NamedTuple):
    """Of a process: its exit status, and what it was ended for from here, if it was."""

    status: int | None
    ended_for: str | None


def run_stage(stage: Stage, lines: Lines, end: float) -> bool:
    """Run it until it is complete, or its time or that of the whole run is over; whether it is complete.

    A process that breaks is followed by another one as long as each begins something.

    Args:
        stage: what is run.
        lines: where it is recorded.
        end: of the whole run, by the monotonic clock.
    """
    start = time.monotonic()
    end = min(end, start + stage.seconds)
    ending, complete = _Ending(None, "time"), False
    before: int | None = None
    try:
        while end - time.monotonic() > _LEAST_SECONDS and (before is None or len(begun(lines.path)) > before):
            acceptable = (_ALL_PASSED,) if before is None else (_ALL_PASSED, _NOTHING_LEFT)
            before = len(begun(lines.path))
            lines.write("process", stage=stage.name, seconds_left=end - time.monotonic())
            ending = _process(stage, lines.path, end)
            complete = ending.ended_for is None and (ending.status in acceptable or _has_failures(ending, lines.path))
            if complete or ending.ended_for == "time":
                break
            lines.write("broken", stage=stage.name, **ending._asdict())
    except KeyboardInterrupt:
        ending = _Ending(None, "interrupt")
        raise
    finally:
        seconds = time.monotonic() - start
        lines.write("end", stage=stage.name, complete=complete, **ending._asdict(), seconds=seconds)
    return complete


def _has_failures(ending: _Ending, path: Path) -> bool:
    """Whether the last process ended with failures; Python has the same exit status for errors, not on record."""
    records = read(path)
    start = max(number for number, record in enumerate(records) if record["kind"] == "process")
    return ending.status == _SOME_FAILED and bool(of_kind(records[start:], "failed"))


def _process(stage: Stage, path: Path, end: float) -> _Ending:
    until = time.time() + end - time.monotonic() - stage.reserve
    command = [word.replace("{until}", f"{until:.1f}") for word in stage.command]
    with subprocess.Popen(command, process_group=0) as process:
        try:
            while process.poll() is None:
                if time.monotonic() > end:
                    return _Ending(_stop(process), "time")
                if time.time() - path.stat().st_mtime > stage.silence:
                    return _Ending(_stop(process), "silence")
                time.sleep(_POLL)
            return _Ending(process.returncode, None)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> int:
    """End the process and those that it started: an interrupt, and if that is not enough a kill."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    status = process.wait()
    _wait_for_the_killed(process.pid)
    return status


def _wait_for_the_killed(group: int) -> None:
    """A kill is sent before it is done, and what follows needs the memory that they hold on the card.

    Where nobody asks how orphans ended they stay listed, so not for ever.
    """
    end = time.monotonic() + _GRACE
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(group, 0)
            time.sleep(_POLL / 10)
