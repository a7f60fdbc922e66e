"""What all benchmarks share: the device, the size, how a call is measured and the closing tables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import pytest
import torch

from benchmarks.measuring import (
    Call,
    Measure,
    Size,
    copy_bytes_per_second,
    device_seconds,
    peak_extra_megabytes,
    synchronised,
    wall_seconds,
)
from benchmarks.results_table import EAGER, Result, tables, times_faster

_RESULTS = pytest.StashKey[list[Result]]()
_LOAD = pytest.StashKey[float]()
_MOST_ROUNDS = 30
_SECONDS_OF_ROUNDS = {"small": 0.2, "full": 2.5}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--benchmark-size",
        choices=("small", "full"),
        default="full",
        help="small: a quick check that every benchmark runs (its ratios mean little); full: sizes worth reporting",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = []
    config.stash[_LOAD] = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def pytest_report_header(config: pytest.Config) -> str:
    return f"benchmarks: {config.getoption('--benchmark-size')} size on {_describe(_pick_device())}"


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info |= {name: _version(name) for name in ("torch", "triton", "numpy")}
    machine_info["load_average_at_start"] = config.stash[_LOAD]
    machine_info["torch_threads"] = torch.get_num_threads()
    machine_info["device"] = _describe(_pick_device())
    machine_info["benchmark_size"] = config.getoption("--benchmark-size")
    if torch.cuda.is_available():
        machine_info["gpu"] = {
            "name": torch.cuda.get_device_name(),
            "driver": os.environ.get("GPU_DRIVER", "unknown"),
            "runtime": torch.version.cuda or torch.version.hip,
            "memory_bytes": torch.cuda.get_device_properties(0).total_memory,
            "copy_gb_per_second": copy_bytes_per_second() / 1e9,
        }


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash[_RESULTS]
    if not results:
        return
    terminalreporter.section("ratios and memory")
    terminalreporter.write_line(f"{config.getoption('--benchmark-size')} size on {_describe(_pick_device())}")
    load, cores = config.stash[_LOAD], os.cpu_count() or 1
    if load > cores / 2:
        terminalreporter.write_line(
            f"load average at the start: {load:.1f} on {cores} cores; if other programs went on working, "
            "do not trust the ratios (OMP_NUM_THREADS=1 helps)",
            yellow=True,
        )
    if torch.cuda.is_available():
        terminalreporter.write_line(f"device-to-device copy: {copy_bytes_per_second() / 1e9:.0f} GB/s")
    terminalreporter.write_line(
        "best ms: the fastest round; X / this: that of X divided by it, above 1 is faster than X"
    )
    terminalreporter.write_line("")
    for line in tables(results):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return _pick_device()


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> Size:
    """Of the benchmarks."""
    chosen: Size = request.config.getoption("--benchmark-size")
    return chosen


@pytest.fixture
def measure(benchmark: Any, device: torch.device, size: Size, request: pytest.FixtureRequest) -> Measure:
    """Measures a call with pytest-benchmark, and what else there is to say about it."""
    results = request.config.stash[_RESULTS]

    def measure_call(
        call: Call, *, group: str, name: str, floor_bytes: int | None = None, samples: int | None = None
    ) -> None:
        benchmark.group = group
        timed = synchronised(call, device)
        figures = {"peak_extra_mb": peak_extra_megabytes(call, device)}  # warms up too
        estimate = wall_seconds(timed)
        fitting = int(_SECONDS_OF_ROUNDS[size] / estimate)
        benchmark.pedantic(timed, rounds=min(max(fitting, 1), _MOST_ROUNDS))
        if benchmark.stats is None:  # --benchmark-disable
            return
        best = benchmark.stats.stats.min
        if samples is not None:
            figures["samples_per_s"] = samples / best
        if device.type == "cuda":
            figures |= _gpu_figures(call, estimate, floor_bytes)
        result = Result(group, name, best, figures)
        results.append(result)
        benchmark.extra_info.update(figures)
        ratio = times_faster(results, result, EAGER)
        if ratio is not None:
            benchmark.extra_info["times_faster_than_eager"] = ratio

    return measure_call


def _gpu_figures(call: Call, estimate: float, floor_bytes: int | None) -> dict[str, float]:
    seconds = device_seconds(call, calls=min(max(int(0.5 / estimate), 1), 20), repeats=3)
    figures = {"queued_ms": seconds * 1e3}
    if floor_bytes is not None:
        rate = floor_bytes / seconds
        figures |= {"floor_gb_per_s": rate / 1e9, "percent_of_copy": 100 * rate / copy_bytes_per_second()}
    return figures


def _pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"the CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
