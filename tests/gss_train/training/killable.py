"""A training in a process of its own that dies by SIGKILL when it is told to."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

_OPERATIONS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.truncate"}

# Everything is imported once, in a server that forks: a life then costs as much as the training itself.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "gss_train.training.run",
        "gss_train.config.command_line",
        "scipy.stats",
        "torch._dynamo",
        "torch.utils.tensorboard",
        "tyro",
        "tests.gss_train.training.tiny",
    ]
)


def start(arguments: list[str], output: Path, kill_before: int | None = None) -> Any:
    """Begin `python -m gss_train.main` with these arguments, but with small figures.

    Args:
        arguments: of the command line.
        output: of the run.
        kill_before: it dies before that many operations on files of the run folder; None: it lives.
    """
    process = CONTEXT.Process(target=_live, args=(arguments, str(output), kill_before))
    process.start()
    return process


def _live(arguments: list[str], output: str, kill_before: int | None) -> None:
    import torch  # noqa: PLC0415  (this module is read by the server before it forks)

    from gss_train.main import main  # noqa: PLC0415
    from tests.gss_train.training.tiny import small_figures  # noqa: PLC0415

    torch.set_num_threads(1)
    if kill_before is not None:
        _die_before(kill_before, output)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    with small_figures():
        sys.exit(main(arguments))


def _die_before(operation: int, output: str) -> None:
    count = 0

    def look(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in _OPERATIONS and arguments and str(arguments[0]).startswith(output):
            count += 1
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
