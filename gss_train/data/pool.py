"""Runs one function over many subjects, in this process or in several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from gss_train.common import UserError, default_workers, end_with_parent

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
    workers = default_workers() if workers is None else workers
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
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
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
