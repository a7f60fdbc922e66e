"""Where an evaluation goes: a folder that is written completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gss_train.common import UserError

_SCORES = "scores.json"
_FILES = (_SCORES, "subjects.csv", "table.csv", "table.md")
_FOLDERS = ("subjects", "figures")


def default_output(model: Path, differences: Sequence[str]) -> Path:
    """The folder of an evaluation that was given none.

    Args:
        model: a run folder, whose own evaluation is in `evaluation`; or a file, beside which it goes.
        differences: in a word each, what sets it apart from what a run computes at its end.
    """
    if model.is_dir():
        return model / "-".join(["evaluation", *differences])
    return model.with_name("-".join([model.stem, "evaluation", *differences]))


def check_output(path: Path) -> None:
    """Refuse a path at which there is something else, so that nothing is overwritten but an earlier evaluation.

    Raises:
        UserError: it is a file, or a folder with something else.
    """
    if not path.exists() or (path.is_dir() and ((path / _SCORES).exists() or not any(path.iterdir()))):
        return
    raise UserError(f"--output: {path} exists and is not an empty folder or an evaluation; name another one")


@contextmanager
def open_replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, whose content takes the place of an earlier evaluation once it is complete.

    Raises:
        OSError: a file cannot be written or removed; the message names it.
    """
    temporary = path.with_name(f".{path.absolute().name}.{os.getpid()}.partial")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        path.mkdir(exist_ok=True)
        # The first to go and the last to come: without it the folder is no evaluation.
        for name in _FILES:
            (path / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            if (path / name).exists():
                shutil.rmtree(path / name)
        for entry in sorted(temporary.iterdir(), key=lambda entry: entry.name == _SCORES):
            entry.replace(path / entry.name)
    finally:
        shutil.rmtree(temporary)
