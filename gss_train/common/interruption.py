"""Signals that end long work: the step under way is finished and saved first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A scheduler tells all processes of a job, and torchrun, which it tells too, passes it on: still one stop.
_ONE_STOP_SECONDS = 1.0
_STANDARD_ERROR = 2


class Interrupted(Exception):  # noqa: N818  (no error)
    """Work was ended by a signal, after it was saved.

    Attributes:
        signal: which.

    Args:
        number: of the signal.
        kept: what is saved, for people.
    """

    def __init__(self, number: signal.Signals, kept: str = "") -> None:
        super().__init__(f"stopped by {number.name}{'; ' if kept else ''}{kept}")
        self.signal = number


class Interruption:
    """While it is open, the first SIGTERM or SIGINT is only noted, and said on standard error.

    One more, a second or longer after the first, acts as if nobody had taken it: SIGINT raises KeyboardInterrupt,
    SIGTERM ends the process. Handlers that were there before come back at the end. Processes that are forked meanwhile
    note nothing: signals act on them as usual.

    It works in the main thread, where Python hears signals; in others it does nothing.

    Attributes:
        signal: that came, None before.

    Args:
        meanwhile: what is said to be done before the end.
    """

    def __init__(self, meanwhile: str = "finishing this step, then saving") -> None:
        self.signal: signal.Signals | None = None
        self._meanwhile = meanwhile
        self._came = 0.0
        self._process = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None stands for a handler that Python cannot name.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            _act_as_usual(number, frame)
        elif self.signal is None:
            self.signal = signal.Signals(number)
            self._came = time.monotonic()
            _say(f"{self.signal.name}: {self._meanwhile}; once more to stop at once")
        elif time.monotonic() - self._came >= _ONE_STOP_SECONDS:
            _act_as_usual(number, frame)


def _act_as_usual(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        signal.default_int_handler(number, frame)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _say(line: str) -> None:
    """Python's own streams cannot be written to by a handler that came while they were written to."""
    begin = "\n" if os.isatty(_STANDARD_ERROR) else ""  # a progress bar may stand there
    with suppress(OSError):
        os.write(_STANDARD_ERROR, f"{begin}{line}\n".encode())


def exit_status(number: signal.Signals) -> int:
    """As shells and schedulers know it: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + number


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Signals wait until the end; in processes that are started meanwhile until `ignore_interrupts`, or for ever."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts(worker_id: int = 0) -> None:  # noqa: ARG001  (what a DataLoader passes)
    """Leave signals to the trainer; for worker processes, a DataLoader's too, as `worker_init_fn`.

    A Ctrl-C goes to all processes of a terminal, and the SIGTERM of a scheduler, of torchrun or of `timeout` to all of
    a job. Workers that died of it would take from the trainer the batches of its last step. They end when the trainer
    ends them, by its SIGTERM if nothing else helps, or, as PyTorch has it, seconds after it died.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # There are systems where a process cannot ask who sent a signal. There, any SIGTERM ends the worker.
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_heed_only, args=(_trainer(),), daemon=True).start()


def _trainer() -> int:
    """The process to which this one is a worker; its parent may be a server that forks."""
    trainer = multiprocessing.parent_process()
    return os.getppid() if trainer is None or trainer.pid is None else trainer.pid


def _heed_only(sender: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
        pass
    # With another status, PyTorch would take it for a failure.
    os._exit(0)
