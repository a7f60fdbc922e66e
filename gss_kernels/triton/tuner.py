"""Times the alternatives to the launch table on the GPU at hand, for `python -m gss_kernels.tune`."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources, PTXASError

from gss_kernels.call import GroupCall, Supervision
from gss_kernels.groups import CategoryGroups
from gss_kernels.inputs import GroupLogits, VoxelMask
from gss_kernels.settings import DistillationSettings, VoteSettings
from gss_kernels.triton.configuration import Configuration, KernelName
from gss_kernels.triton.group import triton_group_backward, triton_group_forward
from gss_kernels.triton.supervised import triton_segmentation_backward, triton_segmentation_forward
from gss_kernels.triton.tuned import Launch, trying

VOXELS_PER_THREAD, NUM_WARPS, PROGRAMS_PER_MULTIPROCESSOR = (1, 2, 4), (2, 4, 8), range(2, 9)

_CALLS, _REPEATS = 10, 5
_LONGEST_HOLD = 0.05
# Below that it is noise, for which no bit of a loss should change.
_LEAST_GAIN = 0.01
# Rounding flips the vote of a few voxels in a million.
_FLIPPED = 1e-5

Clock = Callable[[Callable[[], object]], float]
"""Seconds that a call takes."""


@dataclass(frozen=True)
class Size:
    """Of the logits, `[samples, modalities, categories, *spatial]`."""

    samples: int
    modalities: int
    categories: int
    spatial: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Workload:
    """A launch that can be repeated; `run` returns its results."""

    launch: Launch
    run: Callable[[], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Measurements:
    """Of a workload.

    Attributes:
        launch: what was launched.
        seconds: by configuration, that of the table among them.
        left_out: why others were not timed.
    """

    launch: Launch
    seconds: dict[Configuration, float]
    left_out: dict[Configuration, str]

    @property
    def fastest(self) -> Configuration:
        """The table's, unless another is faster by one per cent or more."""
        table = self.launch.from_table()
        best = min(self.seconds, key=lambda configuration: self.seconds[configuration])
        return best if self.seconds[best] <= (1 - _LEAST_GAIN) * self.seconds[table] else table


def alternatives(launch: Launch) -> list[Configuration]:
    """What to try; the number of programs follows from the volume where they do not walk over blocks."""
    walks = launch.kernel in ("forward", "segmentation_forward")
    programs = PROGRAMS_PER_MULTIPROCESSOR if walks else (launch.from_table().programs_per_multiprocessor,)
    return [Configuration(*own) for own in itertools.product(VOXELS_PER_THREAD, NUM_WARPS, programs)]


def measure(workload: Workload, configurations: Iterable[Configuration], clock: Clock) -> Measurements:
    """Time the table's configuration, then the others, unless their results differ or they ask too much of the card."""
    launch = workload.launch
    table = launch.from_table()
    with trying({launch: table}):
        want = workload.run()
        measurements = Measurements(launch, {table: clock(workload.run)}, {})
    for configuration in configurations:
        if configuration == table:
            continue
        with trying({launch: configuration}):
            try:
                same = all(map(agree, workload.run(), want))
            except (OutOfResources, PTXASError) as error:
                measurements.left_out[configuration] = str(error)
                continue
            if same:
                measurements.seconds[configuration] = clock(workload.run)
            else:
                measurements.left_out[configuration] = "its results differ from the table's beyond rounding"
    return measurements


def agree(got: Tensor, want: Tensor) -> bool:
    """Whether results differ by rounding alone."""
    tolerance = 1e-4 if want.dtype == torch.float32 else 2.0**-7
    got, want = got.float(), want.float()
    close = torch.isclose(got, want, rtol=tolerance, atol=tolerance * float(want.abs().max()))
    return int((~close).sum()) <= _FLIPPED * want.numel()


class GpuClock:
    """Seconds of a call on the GPU's own clock: per call, of the fastest of several series.

    The GPU is held back by copies until the host has queued a series: what is measured is the kernels, not the host.
    The copies also leave none of the input in the cache.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._source = torch.zeros(2**26, device=device)
        self._target = torch.empty_like(self._source)
        self._copy()
        self._seconds_of_copy = self._seconds_of_series(self._copy)

    def __call__(self, call: Callable[[], object]) -> float:
        """Time a call."""
        with torch.cuda.device(self._device):
            call()
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(_CALLS):
                call()
            hold = min(1.5 * (time.perf_counter() - start), _LONGEST_HOLD)
            copies = math.ceil(hold / self._seconds_of_copy)
            return min(self._seconds_of_series(call, copies) for _ in range(_REPEATS))

    def _seconds_of_series(self, call: Callable[[], object], copies: int = 0) -> float:
        with torch.cuda.device(self._device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            for _ in range(copies):
                self._copy()
            start.record()
            for _ in range(_CALLS):
                call()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end)) / 1000 / _CALLS

    def _copy(self) -> None:
        self._target.copy_(self._source)


def workloads(size: Size, *, supervised: bool) -> Iterator[Workload]:
    """The two passes of the GSS loss; if `supervised` also those of the objective and of one prediction's loss."""
    yield from _group_workloads(size, None)
    if supervised:
        labels = _random_labels(size)
        yield from _group_workloads(size, Supervision(labels, 1.0, 1.0))
        yield from _segmentation_workloads(size, labels)


def _group_workloads(size: Size, supervision: Supervision | None) -> Iterator[Workload]:
    M, C = size.modalities, size.categories
    groups = CategoryGroups((*((c % M,) for c in range(C - 1)), tuple(range(M))))
    mask = VoxelMask(torch.zeros((), dtype=torch.int64, device=size.device), ratio=0.2)
    call = GroupCall(groups, VoteSettings(), DistillationSettings(), mask, supervision=supervision)
    logits = GroupLogits((_random_logits(size),), stacked=True)

    def forward() -> tuple[Tensor, ...]:
        results, _ = triton_group_forward(logits, call, keep=False)
        return results.losses, results.terms, *results.coefficients.unbind()

    yield Workload(_launch("forward", size, supervised=supervision is not None), forward)

    coefficients = triton_group_forward(logits, call, keep=True)[0].coefficients
    upstream = _upstream(size, ())

    def backward() -> tuple[Tensor, ...]:
        return triton_group_backward(logits, call, coefficients, upstream, None)

    yield Workload(_launch("backward", size, supervised=supervision is not None), backward)


def _segmentation_workloads(size: Size, labels: Tensor) -> Iterator[Workload]:
    prediction = _random_logits(size)[:, 0].contiguous()

    def forward() -> tuple[Tensor, ...]:
        terms, coefficients = triton_segmentation_forward(prediction, labels, None, from_logits=True)
        return terms, *coefficients.unbind()

    yield Workload(_launch("segmentation_forward", size, supervised=True), forward)

    _, coefficients = triton_segmentation_forward(prediction, labels, None, from_logits=True)
    upstream = _upstream(size, (2,))

    def backward() -> tuple[Tensor, ...]:
        return (triton_segmentation_backward(prediction, labels, None, coefficients, upstream, from_logits=True),)

    yield Workload(_launch("segmentation_backward", size, supervised=True), backward)


def _launch(kernel: KernelName, size: Size, *, supervised: bool) -> Launch:
    modalities = 1 if kernel.startswith("segmentation") else size.modalities
    return Launch.of(kernel, modalities, size.categories, supervised, size.dtype, size.device)


def _random_logits(size: Size) -> Tensor:
    """Logits that often agree and are often confident: every route of the vote is taken."""
    generator = torch.Generator(size.device).manual_seed(0)
    rest = (size.categories, *size.spatial)

    def normal(modalities: int) -> Tensor:
        shape = (size.samples, modalities, *rest)
        return torch.randn(shape, dtype=size.dtype, generator=generator, device=size.device)

    return normal(size.modalities).mul_(2).add_(normal(1), alpha=4)


def _random_labels(size: Size) -> Tensor:
    generator = torch.Generator(size.device).manual_seed(1)
    shape = (size.samples, *size.spatial)
    return torch.randint(size.categories, shape, dtype=torch.uint8, generator=generator, device=size.device)


def _upstream(size: Size, shape: tuple[int, ...]) -> Tensor:
    """So much that no gradient is a denormal number in half precision."""
    return torch.full(shape, float(math.prod(size.spatial)), device=size.device)
