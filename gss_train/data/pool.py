"""Runs one function over many subjects, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from gss_train.common import UserError

_MAX_WORKERS = 8  # each holds a whole subject, up to 1 GB

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_unordered(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    finished: int = 0,
) -> Iterator[tuple[Item, Result]]:
    """Yields each item with its result as soon as it is there.

    Args:
        function: can be pickled when there are several workers, as its items and results can.
        items: what to call it with.
        workers: processes, of which 1 is this one. Default: the processors at hand, at most 8.
        progress: called with the number of finished items and that of all items, at first and after each.
        finished: items that were done before, and count as well.

    Raises:
        UserError: a process was killed.
        ValueError: `workers` is below 1.
        Exception: the first that `function` raises; items not begun by then are left.
    """
    workers = _available_processors() if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers: got {workers}, need at least 1")
    workers = min(workers, len(items))
    report = progress or (lambda _finished, _total: None)
    report(finished, finished + len(items))
    results = ((i, function(i)) for i in items) if workers <= 1 else _map_in_pool(function, items, workers)
    for count, pair in enumerate(results, start=finished + 1):
        report(count, finished + len(items))
        yield pair


def _map_in_pool(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result]]:
    # Spawned, because a fork of a process with running threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        futures = {pool.submit(function, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {workers} processes was killed, for want of memory most likely, as each needs about 1 GB: "
            "use fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A killed parent would leave its workers waiting for ever."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _available_processors() -> int:
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        count = os.cpu_count() or 1
    return min(count, _MAX_WORKERS)
