"""Scores of predictions: at once, or, where many take long, in processes of their own while the device goes on."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gss_train.common import UserError, end_with_parent, hold_interrupts, ignore_interrupts
from gss_train.data import Dataset
from gss_train.evaluation.metrics import region_measures

# What is left has to take so long in this process that others are worth their start, also where they find a processor
# taken: each takes 3 seconds of one to import what it needs, and 0.7 GB.
_WORTH_SECONDS = 60.0
# The first case waits for imports, and a subset may be odd: it goes by the median of some.
_FEWEST_TIMED, _MOST_TIMED = 5, 15
# It takes long; all other measures are computed in a moment, where the predictions are.
_SLOW = "hd95_mm"

Volume = npt.NDArray[np.uint8]
Scores = list[list[float]]


class Scorers:
    """Computes the measures of one prediction after the other, whose numbers do not depend on where.

    Without HD95 that is done at once, on the device that has the predictions. With it, at once on the CPU as long as
    little is left, by the time that the last ones took: then by other processes, of one thread each. It is a context:
    at the end the processes finish what they have begun, and leave the rest.

    Args:
        dataset: for the regions.
        measures: of `gss_train.evaluation.metrics.MEASURES`.
        cases: how many predictions there will be.
        workers: processes that may be started; 1 for none.
    """

    def __init__(self, dataset: Dataset, measures: Sequence[str], cases: int, workers: int = 1) -> None:
        self._dataset = dataset
        self._measures = tuple(measures)
        self._is_slow = _SLOW in self._measures
        self._left = cases
        self._workers = workers
        self._seconds: deque[float] = deque(maxlen=_MOST_TIMED)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                f"one of the {self._workers} processes that compute HD95 was killed, for want of memory most likely, "
                "as each needs about 0.7 GB: free some, or score with fewer (python -m gss_train.evaluate --workers 1)"
            ) from error

    def device(self, of_predictions: torch.device) -> torch.device:
        """Where predictions and truth have to be, if predictions come from a device."""
        return torch.device("cpu") if self._is_slow else of_predictions

    def submit(self, prediction: Tensor, truth: Tensor, spacing: Sequence[float]) -> Future[Scores]:
        """Score a prediction.

        Args:
            prediction: category indices, uint8 `[D, H, W]`, on `device`; nobody changes them any more.
            truth: likewise.
            spacing: millimetres from voxel to voxel.

        Returns:
            A row of the scores of all regions for each measure, once they are there.
        """
        self._left -= 1
        how = self._dataset, tuple(spacing), self._measures
        if self._pool is not None:
            # The first ones start a process each, which must not die of a Ctrl-C while it imports. A tensor would take
            # a file of the shared memory, of which there may be little.
            with hold_interrupts():
                return self._pool.submit(_score_volumes, prediction.numpy(), truth.numpy(), *how)
        began = time.monotonic()
        done: Future[Scores] = Future()
        done.set_result(_score(prediction, truth, *how))
        self._seconds.append(time.monotonic() - began)
        self._start_if_worth_it()
        return done

    def _start_if_worth_it(self) -> None:
        if not self._is_slow or self._workers < 2 or len(self._seconds) < _FEWEST_TIMED:
            return
        if statistics.median(self._seconds) * self._left > _WORTH_SECONDS:
            # Spawned, because a fork of a process with running threads can hang.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, mp_context=context, initializer=_begin)


def _begin() -> None:
    """In a worker: a Ctrl-C goes to it too, but the parent decides what is finished."""
    end_with_parent()
    ignore_interrupts()
    torch.set_num_threads(1)


def _score_volumes(
    prediction: Volume, truth: Volume, dataset: Dataset, spacing: Sequence[float], measures: Sequence[str]
) -> Scores:
    return _score(torch.from_numpy(prediction), torch.from_numpy(truth), dataset, spacing, measures)


def _score(
    prediction: Tensor, truth: Tensor, dataset: Dataset, spacing: Sequence[float], measures: Sequence[str]
) -> Scores:
    found: Any = region_measures(prediction, truth, dataset, spacing, measures)
    return [found[measure].tolist() for measure in measures]
