"""What all processes that do a part of the work have in common: how many they are, and when they end."""

from __future__ import annotations

import multiprocessing
import os
import threading

_MOST = 8  # each holds a whole subject, up to 1 GB


def default_workers() -> int:
    """The processors at hand, at most 8."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        count = os.cpu_count() or 1
    return min(count, _MOST)


def end_with_parent() -> None:
    """In a worker: a killed parent would leave it waiting for ever."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
