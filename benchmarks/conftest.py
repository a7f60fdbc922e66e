"""What all benchmarks share: the device, the size, how a call is measured and the closing tables."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from benchmarks import machine
from benchmarks.measuring import Figures, Measure, Size, Work, memory_figures, part_figures, time_figures
from benchmarks.results_table import Result, ratios, tables
from benchmarks.steps import LossStep
from benchmarks.timing import Call, copy_bytes_per_second, synchronised, wall_seconds

_RESULTS = pytest.StashKey[list[Result]]()
_LOAD = pytest.StashKey[float]()
_START = pytest.StashKey[float]()
_LEAST_ROUNDS = {"small": 1, "full": 2}
_MOST_ROUNDS = 30
_GPU = torch.cuda.is_available()
_SECONDS_OF_ROUNDS = {"small": 0.2, "full": 0.5 if _GPU else 2.5}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--benchmark-size",
        choices=("small", "full"),
        default="full",
        help="small: a quick check that every benchmark runs (its ratios mean little); full: sizes worth reporting",
    )
    parser.addoption(
        "--benchmark-crop",
        type=int,
        metavar="VOXELS",
        help="edge of the crops of the networks' benchmarks (default: as published on a GPU, 48 on the CPU)",
    )
    parser.addoption(
        "--benchmark-time-limit",
        type=float,
        metavar="SECONDS",
        help="skip the benchmarks that would begin later than this after the start (default: no limit)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = []
    config.stash[_LOAD] = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    config.stash[_START] = time.monotonic()
    # Benchmarks run on versions nobody has tried, and torch.compile gives advice as warnings.
    config.addinivalue_line("filterwarnings", "default")


def pytest_report_header(config: pytest.Config) -> str:
    return f"benchmarks: {config.getoption('--benchmark-size')} size on {machine.describe(machine.pick_device())}"


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["versions"] = machine.versions()
    machine_info["load_average_at_start"] = config.stash[_LOAD]
    machine_info["torch_threads"] = torch.get_num_threads()
    machine_info["device"] = machine.describe(machine.pick_device())
    machine_info["benchmark_size"] = config.getoption("--benchmark-size")
    if _GPU:
        machine_info["card"] = machine.card() | {"copy_gb_per_s": copy_bytes_per_second() / 1e9}


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
    if _GPU:
        terminalreporter.write_line(f"device-to-device copy: {copy_bytes_per_second() / 1e9:.0f} GB/s")
    terminalreporter.write_line(
        "wall ms: the fastest round; X / this: the time of X divided by this one's, above 1 is faster than X"
    )
    terminalreporter.write_line("")
    for line in tables(results):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return machine.pick_device()


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


@pytest.fixture(autouse=True)
def _time_limit(request: pytest.FixtureRequest) -> None:
    limit = request.config.getoption("--benchmark-time-limit")
    if limit is not None and time.monotonic() - request.config.stash[_START] > limit:
        pytest.skip(f"the time limit of {limit:.0f} s has passed")


@pytest.fixture
def measure(benchmark: Any, device: torch.device, size: Size, request: pytest.FixtureRequest) -> Measure:
    """Measures a call with pytest-benchmark, and what else there is to say about it."""
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
        memory_use: Figures = {}
        rounds = 1
        if not once:
            timed()  # compiles, and libraries make their workspaces
            memory_use = memory_figures(call, device) if memory else {}
            fitting = int(_SECONDS_OF_ROUNDS[size] / wall_seconds(timed))
            rounds = min(max(fitting, _LEAST_ROUNDS[size]), _MOST_ROUNDS)
        benchmark.pedantic(timed, rounds=rounds)
        if benchmark.stats is None:  # --benchmark-disable
            return
        wall = benchmark.stats.stats.min
        if once:
            times = {"wall_ms": wall * 1e3}
        else:
            times = time_figures(call, Work(samples, voxels, share_of_copy, steps), device, wall)
        times |= part_figures(parts or {}, device, times)
        result = Result(group, name, times | memory_use | (figures or {}))
        result.figures.update(ratios(results, result))
        results.append(result)
        benchmark.extra_info |= {"group": group, "name": name, "figures": result.figures}

    return measure_call
