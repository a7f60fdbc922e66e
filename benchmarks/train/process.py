"""A call in a process of its own, which takes what it breaks with it: a GPU's lost context, memory, itself."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_SECONDS_TO_END = 10.0


class CallError(Exception):
    """A call failed, or its process ended without a result; the message says how."""


def call_in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns.

    The process is forked: it has all that is imported here. So this one must not have used a GPU, nor computed with
    several threads.

    Raises:
        CallError: it did not return; a traceback is on standard error.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        result, error = receiver.recv()
        process.join(_SECONDS_TO_END)
    except EOFError:
        process.join()
        result, error = None, f"its process ended with exit status {process.exitcode}"
    finally:
        process.kill()
        process.join()
    if error is not None:
        raise CallError(error)
    return result


def _send_result(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer: tuple[Any, str | None]
    try:
        answer = function(*arguments), None
    except Exception as error:  # whatever it is, the parent goes on
        traceback.print_exc()
        answer = None, f"{type(error).__name__}: {error}"
    sender.send(answer)


def _end_with_parent() -> None:
    """A killed parent can end nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
