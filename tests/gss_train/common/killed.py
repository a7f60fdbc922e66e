"""Processes that are killed at every operation on their files, and started again."""

from __future__ import annotations

import importlib
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

_OPERATIONS = {"os.rename", "os.remove", "os.link", "os.mkdir"}
_WRITING = os.O_WRONLY | os.O_RDWR
_SEED = 0
_AGAIN = 0.2  # share of those that are killed twice
_SIZES = 8


def kill_everywhere(life: str, folder: Path, *arguments: str) -> list[Path]:
    """Live many lives, each with an end of its own.

    The first one that is killed is killed before its first operation that changes files, the next one before its
    second, until one comes to its end; some more when a file of theirs has grown to a drawn size, in the middle of
    writing. Some are killed once more. All then go on to the end.

    Args:
        life: function, as `module:name`, that is called with its output folder and the arguments.
        folder: of the output folders; `undisturbed` is that of a life that nothing happened to.
        arguments: for the life.

    Returns:
        The output folders of those that were killed.
    """
    command = [sys.executable, "-m", "tests.gss_train.common.killed", life, str(folder), *arguments]
    # A process of its own: it has imported everything when it forks, and has no threads.
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    return sorted(path for path in folder.iterdir() if path.name != "undisturbed")


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _main(life: str, folder: str, *arguments: str) -> None:
    module, name = life.split(":")
    function = getattr(importlib.import_module(module), name)
    # What a killed process has written is there whether it was synchronised or not, and that takes most of the time.
    os.fsync = lambda _descriptor: None
    draws = random.Random(_SEED)
    print(f"draws of seed {_SEED}")

    def live(output: Path) -> None:
        function(output, *arguments)

    def survives(output: Path, prepare: Callable[[str], None]) -> bool:
        if _survives(live, output, prepare):
            return True
        if draws.random() < _AGAIN:
            number = draws.randint(1, 20)
            print(f"{output.name}, and again before operation {number}")
            _survives(live, output, _die_before(number))
        live(output)
        return False

    undisturbed = Path(folder) / "undisturbed"
    live(undisturbed)
    for number in itertools.count(1):
        if survives(Path(folder) / f"operation-{number}", _die_before(number)):
            break
    largest = max(len(content) for content in contents(undisturbed).values())
    for size in draws.sample(range(1, largest), _SIZES):
        assert not survives(Path(folder) / f"size-{size}", _die_beyond(size))


def _survives(live: Callable[[Path], None], output: Path, prepare: Callable[[str], None]) -> bool:
    """Whether a child that was prepared to die comes to its end."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            prepare(str(output))
            live(output)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in {0, -signal.SIGKILL, -signal.SIGXFSZ}
    return status == 0


def _die_before(number: int) -> Callable[[str], None]:
    def prepare(output: str) -> None:
        count = itertools.count(1)

        def look(event: str, arguments: tuple[object, ...]) -> None:
            if _changes_files(event, arguments, output) and next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(look)

    return prepare


def _changes_files(event: str, arguments: tuple[object, ...], output: str) -> bool:
    if not (arguments and str(arguments[0]).startswith(output)):
        return False
    return event in _OPERATIONS or (event == "open" and bool(int(str(arguments[2])) & _WRITING))


def _die_beyond(size: int) -> Callable[[str], None]:
    """By a limit of the system: a file is written as far as that, and no further."""

    def prepare(_output: str) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)

    return prepare


if __name__ == "__main__":
    _main(*sys.argv[1:])
