"""Two processes that work together, of one program that has imported what both need."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path


def be_two(work: Callable[[int, Path], None], folder: Path) -> int:
    """Begin a second process, and be the first; the exit status is the second's.

    Args:
        work: of each, which is given its rank and the folder.
        folder: that they share.
    """
    second = multiprocessing.get_context("fork").Process(target=work, args=(1, folder), daemon=True)
    second.start()
    work(0, folder)
    second.join()
    return second.exitcode or 0
