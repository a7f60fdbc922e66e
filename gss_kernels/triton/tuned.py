"""Which configuration a launch takes: the table's or, with GSS_KERNELS_AUTOTUNE=1, the fastest on the card at hand.

The first launch of a kind then times the alternatives, and Triton's cache keeps the times for later processes. Triton's
own `autotune` decides at the launch of one kernel; here workspaces are allocated before, by the configuration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.runtime import driver
from triton.runtime.cache import get_cache_manager
from triton.runtime.errors import OutOfResources, PTXASError

from gss_kernels.triton.configuration import TABLE, Configuration, KernelName

VOXELS_PER_THREAD, NUM_WARPS, PROGRAMS_PER_MULTIPROCESSOR = (1, 2, 4), (2, 4, 8), range(2, 9)
_FILE = "configurations.json"
# Below that it is noise, for which no bit of a loss should change.
_LEAST_GAIN = 0.01
# Rounding flips the vote of a few voxels in a million.
_FLIPPED = 1e-5

Results = tuple[Tensor, ...]


class Launch(NamedTuple):
    """What a configuration is chosen by: nothing else, so that missing modalities and statistics change no bit."""

    kernel: KernelName
    modalities: int
    categories: int
    segmented: bool
    dtype: torch.dtype
    device: torch.device

    def from_table(self) -> Configuration:
        """What the table has for it."""
        return TABLE.of(self.kernel, self.modalities, self.categories, segmented=self.segmented)

    def alternatives(self) -> list[Configuration]:
        """What to try; the number of programs follows from the volume where they do not walk over blocks."""
        table, walks = self.from_table(), self.kernel in ("forward", "segmentation_forward")
        programs = PROGRAMS_PER_MULTIPROCESSOR if walks else (table.programs_per_multiprocessor,)
        tried = itertools.starmap(Configuration, itertools.product(VOXELS_PER_THREAD, NUM_WARPS, programs))
        return [own for own in tried if own != table]


_chosen: dict[Launch, Configuration] = {}


def configuration_for(launch: Launch, kernel: Any, run: Callable[[], Results]) -> Configuration:
    """The configuration of such launches of a kernel, the same to the end of the process; `run` gives their results."""
    if launch not in _chosen:
        tune = os.environ.get("GSS_KERNELS_AUTOTUNE") == "1" and not knobs.runtime.interpret
        _chosen[launch] = _fastest(launch, kernel, run) if tune else launch.from_table()
    return _chosen[launch]


@contextlib.contextmanager
def trying(choices: Mapping[Launch, Configuration]) -> Iterator[None]:
    """Have launches take these configurations meanwhile."""
    before = {launch: _chosen[launch] for launch in choices if launch in _chosen}
    _chosen.update(choices)
    try:
        yield
    finally:
        for launch in choices:
            del _chosen[launch]
        _chosen.update(before)


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensors'."""
    return contextlib.nullcontext() if tensor.device.type == "cpu" else torch.cuda.device(tensor.device)


def _fastest(launch: Launch, kernel: Any, run: Callable[[], Results]) -> Configuration:
    """The table's, unless another is faster by one per cent or more."""
    card, table = torch.cuda.get_device_name(launch.device), launch.from_table()
    kind = (triton.__version__, kernel.cache_key, card, launch[:-1], table, launch.alternatives())
    cache = get_cache_manager(hashlib.sha256(repr(kind).encode()).hexdigest())
    if (path := cache.get_file(_FILE)) is None:
        measured = [(dataclasses.asdict(own), time) for own, time in _milliseconds(launch, run).items()]
        path = cache.put(json.dumps({"launch": f"{launch} on {card}", "milliseconds": measured}), _FILE, binary=False)
    times = {Configuration(**own): time for own, time in json.loads(Path(path).read_text())["milliseconds"]}
    best = min(times, key=times.__getitem__)
    if knobs.autotuning.print:
        print(f"{launch} on {card}: {best} {times[best]:.4f} ms, the table's {times[table]:.4f} ms; all: {path}")
    return best if times[best] <= (1 - _LEAST_GAIN) * times[table] else table


def _milliseconds(launch: Launch, run: Callable[[], Results]) -> dict[Configuration, float]:
    """Of the table's configuration, and of others that give its results and do not ask too much of the card."""
    table = launch.from_table()
    with trying({launch: table}):
        want = run()
        times = {table: _time(run, want)}
    for configuration in launch.alternatives():
        with trying({launch: configuration}), contextlib.suppress(OutOfResources, PTXASError):
            if all(map(_agree, run(), want)):
                times[configuration] = _time(run, want)
    return times


def _time(run: Callable[[], Results], results: Results) -> float:
    with on_device_of(results[0]):
        return float(driver.active.get_benchmarker()(run, quantiles=(0.5, 0.2, 0.8))[0])


def _agree(got: Tensor, want: Tensor) -> bool:
    """Whether results differ by rounding alone."""
    tolerance, limits = 1e-3 if want.dtype == torch.float32 else 2.0**-7, torch.finfo(want.dtype)
    allowed = tolerance * float(want.nan_to_num(0, 0, 0).abs().max()) + limits.smallest_normal * limits.eps
    close = torch.isclose(got.float(), want.float(), rtol=tolerance, atol=allowed, equal_nan=True)
    return int((~close).sum()) <= _FLIPPED * want.numel()
