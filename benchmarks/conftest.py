"""What all benchmarks share: the device, the size, how a call is measured and the closing tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from benchmarks import machine
from benchmarks.measuring import Figures, Measure, Size, Work, memory_figures, part_figures, time_figures
from benchmarks.recording import LINES, deselect
from benchmarks.results_table import Result, tables, with_ratios
from benchmarks.steps import LossStep
from benchmarks.timing import Call, copy_bytes_per_second, synchronised, wall_seconds

Note = Callable[..., None]

_RESULTS = pytest.StashKey[list[Result]]()
_LOAD = pytest.StashKey[float]()
_LONG = pytest.StashKey[int]()
_LEAST_ROUNDS, _MOST_ROUNDS = 2, 30
_SECONDS_OF_ROUNDS = 0.5 if torch.cuda.is_available() else 2.5


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--benchmark-size",
        choices=("small", "full"),
        default="full",
        help="small: a quick check that each runs (ratios of one round mean little); full: sizes worth reporting",
    )
    parser.addoption(
        "--benchmark-long", action="store_true", help="in the full size also the benchmarks that take minutes"
    )
    parser.addoption(
        "--benchmark-crop",
        type=int,
        metavar="VOXELS",
        help="edge of the crops of the networks' benchmarks (default: as published on a GPU, 48 on the CPU)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = []
    config.stash[_LOAD] = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    config.addinivalue_line("markers", "long: takes minutes in the full size, see --benchmark-long")
    # Benchmarks run on versions nobody has tried, and torch.compile gives advice as warnings.
    config.addinivalue_line("filterwarnings", "default")


def pytest_report_header(config: pytest.Config) -> str:
    return f"benchmarks: {config.getoption('--benchmark-size')} size on {machine.describe(machine.pick_device())}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    everything = config.getoption("--benchmark-long") or config.getoption("--benchmark-size") == "small"
    long = [] if everything else [item for item in items if item.get_closest_marker("long")]
    config.stash[_LONG] = len(long)
    deselect(config, items, long)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    count = config.stash.get(_LONG, 0)
    return [f"benchmarks: {count} long ones are left out, --benchmark-long takes them too"] if count else []


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash[_RESULTS]
    if not results:
        return
    terminalreporter.section("ratios and memory")
    device = machine.describe(machine.pick_device())
    terminalreporter.write_line(f"{config.getoption('--benchmark-size')} size on {device}")
    load, cores = config.stash[_LOAD], os.cpu_count() or 1
    if load > cores / 2:
        terminalreporter.write_line(
            f"load average at the start: {load:.1f} on {cores} cores; if other programs went on working, "
            "do not trust the ratios (OMP_NUM_THREADS=1 helps)",
            yellow=True,
        )
    if copy_bytes_per_second.cache_info().currsize:
        terminalreporter.write_line(f"device-to-device copy: {copy_bytes_per_second() / 1e9:.0f} GB/s")
    terminalreporter.write_line(
        "wall ms: the fastest round; X / this: the time of X divided by this one's, above 1 is faster than X"
    )
    terminalreporter.write_line("")
    for line in tables(with_ratios(results)):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The first GPU if there is one, else the CPU."""
    device = machine.pick_device()
    if LINES in request.config.stash:
        load = request.config.stash[_LOAD]
        request.config.stash[LINES].write("device", **machine.facts(device), load_average=load)
    return device


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> Size:
    """Of the benchmarks."""
    chosen: Size = request.config.getoption("--benchmark-size")
    return chosen


@pytest.fixture(scope="session")
def crop_edge(request: pytest.FixtureRequest) -> int | None:
    """Of the networks' benchmarks, if it was given."""
    edge: int | None = request.config.getoption("--benchmark-crop")
    return edge


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Writes a record of the running test, where records are written: `note(kind, **fields)`."""
    lines = request.config.stash.get(LINES, None)

    def write(kind: str, **fields: Any) -> None:
        if lines is not None:
            lines.write(kind, id=request.node.nodeid, **fields)

    return write


@pytest.fixture
def measure(benchmark: Any, device: torch.device, size: Size, note: Note, request: pytest.FixtureRequest) -> Measure:
    """Measures a call, and notes each of its figures as soon as there is one."""
    results = request.config.stash[_RESULTS]

    def measure_call(
        call: Call | LossStep,
        *,
        group: str,
        name: str,
        samples: int | None = None,
        voxels: int | None = None,
        share_of_copy: bool = True,
        memory: bool = True,
        steps: bool = False,
        once: bool = False,
        parts: Mapping[str, Call] | None = None,
        figures: Figures | None = None,
    ) -> None:
        benchmark.group = group
        timed = synchronised(call, device)
        rounds = 1
        if not once:
            timed()  # compiles, and libraries make their workspaces
            if size == "full":
                fitting = int(_SECONDS_OF_ROUNDS / wall_seconds(timed))
                rounds = min(max(fitting, _LEAST_ROUNDS), _MOST_ROUNDS)
        wall = _fastest(benchmark, timed, rounds)
        result = Result(group, name, {})
        results.append(result)

        def add(own: Figures) -> None:
            result.figures.update(own)
            note("result", group=group, name=name, rounds=rounds, figures=own)

        add({"wall_ms": wall * 1e3})
        if not once:
            add(time_figures(call, Work(samples, voxels, share_of_copy, steps), device, wall))
            if parts:
                add(part_figures(parts, device, result.figures))
            if memory:
                add(memory_figures(call, device))
        if figures:
            add(figures)

    return measure_call


def _fastest(benchmark: Any, timed: Call, rounds: int) -> float:
    """Seconds of the fastest round, by a clock of its own; pytest-benchmark shows its table of them."""
    seconds: list[float] = []
    try:
        benchmark.pedantic(lambda: seconds.append(wall_seconds(timed)), rounds=rounds)
    except BaseException:
        # It does not notice interrupts, and ends the session with an error about statistics of nothing.
        benchmark.has_error = True
        raise
    return min(seconds)
