"""A pytest plugin for `tests/gpu` on a machine without a GPU: `pytest tests/gpu -p tests.pretended_gpu`.

Tensors "on the GPU" are on the CPU. What a test launches is compiled as an H100 would have it (`benchmarks.stub_card`);
what it computes comes from the CPU backend, so that tests go on to their last launch. What tests then say of a card is
void, and does not count: the run fails if a kernel does not compile, and names those.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Generator
from typing import Any
from unittest import mock

import pytest
import torch
from torch.overrides import TorchFunctionMode

import gss_kernels.gss.cpu
import gss_kernels.gss.launch
import gss_kernels.segmentation.cpu
import gss_kernels.segmentation.launch
from benchmarks.stub_card import stub_card
from gss_kernels import backends
from gss_kernels.tensors import Inputs
from gss_kernels.triton import tuned

_MULTIPROCESSORS = 132
_FREE_BYTES = 2**31
"""Tests that ask for more are skipped: this machine's memory and time would not do."""
_MOST_SAMPLES = 1000
"""Of more, each of which costs the CPU a call, nothing is computed."""
_launched: list[str] = []
_not_compiled: list[str] = []


def _on_the_cpu(device: Any) -> Any:
    is_gpu = isinstance(device, (str, torch.device)) and torch.device(device).type == "cuda"
    return torch.device("cpu") if is_gpu else device


class _OnTheCPU(TorchFunctionMode):
    """Makes tensors on the CPU that would be made on, or moved to, the GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {name: _on_the_cpu(value) if name == "device" else value for name, value in (kwargs or {}).items()}
        if func is torch.Tensor.to:
            args = tuple(map(_on_the_cpu, args))
        if func is torch.Tensor.pin_memory:
            return args[0]
        return func(*args, **kwargs)


class _Generator(torch.Generator):
    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls, _on_the_cpu(device))


class _Autocast(torch.autocast):
    def __init__(self, _device_type: str, *arguments: Any, **options: Any) -> None:
        super().__init__("cpu", *arguments, **options)


def _pretend(patch: Callable[..., Any]) -> None:
    """Let everybody see a GPU."""
    cuda = mock.MagicMock()
    for name, value in {
        "is_available": lambda: True,
        "is_bf16_supported": lambda **_: True,
        "get_device_capability": lambda _device=None: (9, 0),
        "device_count": lambda: 1,
        "get_device_name": lambda _device=None: "a card that is not there",
        "mem_get_info": lambda _device=None: (_FREE_BYTES, _FREE_BYTES),
        "memory_stats": lambda _device=None: defaultdict(int),
    }.items():
        patch(torch.cuda, name, value)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", "set_sync_debug_mode", "current_stream"):
        patch(torch.cuda, name, getattr(cuda, name))
    for name in ("Stream", "stream", "CUDAGraph", "graph", "device", "Event", "get_device_properties"):
        patch(torch.cuda, name, getattr(cuda, name))
    patch(tuned, "_time", lambda run, _results: float(bool(run())))
    patch(torch, "Generator", _Generator)
    patch(torch, "autocast", _Autocast)
    for room in (gss_kernels.gss, gss_kernels.segmentation):
        for name in ("forward", "backward", "soft_targets"):
            if compute := getattr(room.cpu, name, None):
                launch = getattr(room.launch, name)
                patch(room.launch, name, functools.partial(_launch_and_compute, launch, compute))
    backends.backend_of.cache_clear()
    for module in [own for name, own in sys.modules.items() if name.startswith("gss_kernels.")]:
        if hasattr(module, "pick_backend"):
            patch(module, "pick_backend", functools.partial(_pick_backend, module.pick_backend))


def _launch_and_compute(
    launch: Callable[..., Any], compute: Callable[..., Any], inputs: Inputs, *arguments: Any, **keep: bool
) -> Any:
    uninitialised = None
    try:
        uninitialised = launch(inputs, *arguments, **keep)
    except Exception as error:  # whatever a compiler raises
        _not_compiled.append(f"{launch.__module__}.{launch.__name__}: {type(error).__name__}: {error}")
    if inputs.logits.shape[0] > _MOST_SAMPLES:
        return uninitialised
    return compute(inputs, *arguments, **dict.fromkeys(keep, False))


def _pick_backend(pick: Callable[..., str], backend: str, *arguments: Any, **options: Any) -> str:
    return pick("triton" if backend == "auto" else backend, *arguments, **options)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    with contextlib.ExitStack() as patches:
        patches.enter_context(stub_card("sm_90", _MULTIPROCESSORS, on_launch=lambda own: _launched.append(own.name)))
        patches.enter_context(_OnTheCPU())
        _pretend(lambda *replaced: patches.enter_context(mock.patch.object(*replaced)))
        return (yield)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    item.user_properties += [("launched", tuple(_launched)), ("not compiled", tuple(_not_compiled))]
    _launched.clear()
    _not_compiled.clear()


class _Summary:
    """Of all tests, whichever process ran them."""

    def __init__(self) -> None:
        self.launched: Counter[str] = Counter()
        self.not_compiled: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            properties = dict(report.user_properties)
            self.launched.update(properties["launched"])
            self.not_compiled += [f"{report.nodeid}: {failure}" for failure in properties["not compiled"]]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        session.exitstatus = 1 if self.not_compiled or not self.launched else 0

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("kernels compiled as on a card")
        for failure in self.not_compiled:
            terminalreporter.write_line(failure, red=True)
        launches = ", ".join(f"{name} {count}" for name, count in sorted(self.launched.items()))
        terminalreporter.write_line(f"launched: {launches}; not compiled: {len(self.not_compiled)}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Summary())
    # Before the tests import it: of a GPU that is not there it waits for word.
    patch = mock.patch.object(torch.profiler, "profile", mock.MagicMock())
    patch.start()
    config.add_cleanup(patch.stop)
