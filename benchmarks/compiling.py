"""Compiles the kernels of the losses by several processes, into the cache on disk that later processes find them in.

    python -m benchmarks.compiling --lines FILE [--dry-run]

The processes pretend to have the card (`benchmarks/stub_card.py`), so that none of them takes a share of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from benchmarks.lines import Lines
from benchmarks.loss_forms import DTYPES, LOSSES, LossForm
from benchmarks.stub_card import TARGETS, stub_card

Job = Callable[[LossForm], list[str]]
"""Compiles what a form launches; gives the kernels' names."""

# Kernels differ by what divides their sizes and numbers of programs: 80 is like all large edges, 32 like small ones.
_EDGES = (80, 32)
_MOST_PROCESSES = 16


def forms() -> list[LossForm]:
    """What is compiled, what is benchmarked first at the front."""
    kinds = itertools.product((True, False), (4, 5), DTYPES, LOSSES)
    return [LossForm(loss, categories, dtype, _EDGES[0], training) for training, categories, dtype, loss in kinds]


def compile_form(form: LossForm, target: str, multiprocessors: int) -> list[str]:
    """Both passes of a form as on a card, in every edge that makes a difference."""
    torch.set_num_threads(1)
    kernels: list[str] = []
    with stub_card(target, multiprocessors, on_launch=lambda launch: kernels.append(launch.name)):
        for own in (dataclasses.replace(form, edge=edge) for edge in _EDGES):
            labels = torch.zeros(own.label_shape, dtype=torch.uint8)
            own.step_of(torch.empty(own.shape, dtype=DTYPES[own.dtype]), labels, "triton")()
    return kernels


def compile_all(jobs: Sequence[LossForm], job: Job, lines: Lines, processes: int) -> bool:
    """Do the jobs by several processes, with a record of each; whether none failed."""
    start, succeeded = time.monotonic(), True
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(job, form): form for form in jobs}
        for future in as_completed(futures):
            name = f"compiling {futures[future]}"
            try:
                lines.write("compiled", id=name, kernels=future.result(), second=time.monotonic() - start)
            except Exception as error:  # whatever a compiler or the end of its process raises
                succeeded = False
                lines.write("failed", id=name, error=f"{type(error).__name__}: {error}"[:1000])
    return succeeded


def main() -> int:
    """Compile for the card of this machine, or in a dry run a little for one that is not there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiling", description=__doc__)
    parser.add_argument("--lines", type=Path, required=True, metavar="FILE")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    lines = Lines(arguments.lines)
    if arguments.dry_run:
        target, multiprocessors, jobs = "sm_90", 132, forms()[:1]
    else:
        card = torch.cuda.get_device_properties(0)
        target, multiprocessors, jobs = f"sm_{card.major}{card.minor}", card.multi_processor_count, forms()
    if target not in TARGETS:
        lines.write("skipped", id="compiling", reason=f"for {', '.join(TARGETS)}, not for {target}")
        return 0
    processes = min(os.cpu_count() or 1, _MOST_PROCESSES, len(jobs))
    job = functools.partial(compile_form, target=target, multiprocessors=multiprocessors)
    return 0 if compile_all(jobs, job, lines, processes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
