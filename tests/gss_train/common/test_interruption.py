from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gss_train.common import interruption as module
from gss_train.common.interruption import Interrupted, Interruption, exit_status

BOTH = [signal.SIGTERM, signal.SIGINT]

TRAINER = """
import signal, sys, time
from gss_train.common import interruption
interruption._ONE_STOP_SECONDS = float(sys.argv[1])
with interruption.Interruption() as noted:
    print("begun", flush=True)
    while noted.signal is None:
        time.sleep(0.001)
    print("noted", flush=True)
    sys.stdin.readline()
    print("saved", flush=True)
sys.exit(interruption.exit_status(noted.signal))
"""

# Its loader's workers are asked for batches after they and their trainer were told to end.
LOADING_TRAINER = """
import sys, time
from torch.utils.data import DataLoader
from gss_train.common.interruption import Interruption, exit_status, ignore_interrupts
with Interruption() as noted:
    loader = DataLoader(range(400), batch_size=4, num_workers=1, persistent_workers=True,
                        worker_init_fn=ignore_interrupts)
    batches = iter(loader)
    next(batches)
    worker = batches._workers[0]
    print("begun", worker.pid, flush=True)
    while noted.signal is None:
        time.sleep(0.001)
    assert sum(len(batch) for batch in batches) == 396
    assert worker.is_alive()
    print("saved", flush=True)
    if sys.argv[1] == "end":
        worker.terminate()
        worker.join(5)
        print(worker.exitcode, flush=True)
        worker.kill()
sys.exit(exit_status(noted.signal))
"""

FORKING = """
import os, signal, sys, time
from gss_train.common.interruption import Interruption
ready, begun = os.pipe()
with Interruption() as noted:
    child = os.fork()
    if child == 0:
        os.write(begun, b"x")
        time.sleep(5)
        os._exit(0)
    os.read(ready, 1)  # a signal that comes while it forks is lost, in any Python program
    os.kill(child, int(sys.argv[1]))
    status = os.waitpid(child, 0)[1]
    assert noted.signal is None
print(os.waitstatus_to_exitcode(status))
"""


@contextmanager
def start(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """In a group of processes of its own, as in a terminal."""
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_only_noted_and_said(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    with Interruption() as interruption:
        assert interruption.signal is None
        signal.raise_signal(number)
        assert interruption.signal is number
    expected = f"{number.name}: finishing this step, then saving; once more to stop at once\n"
    assert capfd.readouterr().err == expected


@pytest.mark.parametrize("number", BOTH)
def test_handlers_come_back(number: signal.Signals) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda number, _frame: heard.append(number))
    try:
        with Interruption() as interruption:
            signal.raise_signal(number)
        assert heard == []
        signal.raise_signal(number)
        assert heard == [number]
        assert interruption.signal is number
    finally:
        signal.signal(number, before)


def test_handlers_come_back_after_an_error() -> None:
    before = [signal.getsignal(number) for number in BOTH]
    with pytest.raises(ZeroDivisionError), Interruption():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in BOTH] == before


@pytest.mark.parametrize("first", BOTH)
@pytest.mark.parametrize(("second", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)])
def test_one_more_acts_as_if_there_were_no_handler(first: signal.Signals, second: signal.Signals, status: int) -> None:
    with start(TRAINER, "0") as process:
        assert said(process) == "begun"
        process.send_signal(first)
        assert said(process) == "noted"
        process.send_signal(second)
        out, error = process.communicate()
        assert process.returncode == status
        assert out == ""
        assert ("KeyboardInterrupt" in error) == (second is signal.SIGINT)


@pytest.mark.parametrize("number", BOTH)
def test_the_same_stop_told_twice_is_one(number: signal.Signals) -> None:
    with start(TRAINER, "60") as process:
        assert said(process) == "begun"
        process.send_signal(number)
        assert said(process) == "noted"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate("end\n")
        assert out == "saved\n"
        assert error.count("finishing this step") == error.count("\n") == 1
        assert process.returncode == 128 + number


def test_one_more_counts_from_a_second_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        now = 100.9
        signal.raise_signal(signal.SIGINT)
        now = 101.1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert interruption.signal is signal.SIGTERM


def test_in_another_thread_it_does_nothing() -> None:
    before = [signal.getsignal(number) for number in BOTH]
    seen = []

    def body() -> None:
        with Interruption() as interruption:
            seen.append([signal.getsignal(number) for number in BOTH])
        assert interruption.signal is None

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_closed_standard_error_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    monkeypatch.setattr(module, "_STANDARD_ERROR", writing)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
    assert interruption.signal is signal.SIGTERM


@pytest.mark.parametrize("number", BOTH)
def test_signals_act_on_forked_processes_as_usual(number: signal.Signals) -> None:
    with start(FORKING, str(int(number))) as process:
        out, error = process.communicate()
        assert process.returncode == 0, error
        assert out.split() == [str(-number)]
        assert ("KeyboardInterrupt" in error) == (number is signal.SIGINT)


@pytest.mark.parametrize(("number", "end"), [(signal.SIGTERM, "end"), (signal.SIGINT, "leave")])
def test_loader_workers_leave_signals_to_their_trainer(number: signal.Signals, end: str) -> None:
    """The signal goes to the whole group, as from a terminal, a scheduler or torchrun."""
    with start(LOADING_TRAINER, end) as process:
        begun, worker = said(process).split()
        assert begun == "begun"
        os.kill(int(worker), number)
        os.killpg(process.pid, number)
        out, error = process.communicate()
        assert error == f"{number.name}: finishing this step, then saving; once more to stop at once\n"
        assert out.splitlines() == (["saved", "0"] if end == "end" else ["saved"])
        assert process.returncode == 128 + number
        with pytest.raises(ProcessLookupError):
            os.kill(int(worker), 0)


def test_exit_statuses_are_those_of_shells() -> None:
    assert (exit_status(signal.SIGINT), exit_status(signal.SIGTERM)) == (130, 143)


def test_the_exception_names_the_signal() -> None:
    interrupted = Interrupted(signal.SIGTERM)
    assert interrupted.signal is signal.SIGTERM
    assert "SIGTERM" in str(interrupted)
