"""A GPU that is not there: Triton specialises and compiles for it as it would on one, by its own launch path.

    with stub_card("sm_90", 132, on_launch=print):
        fused_gss_loss(logits, groups, backend="triton")  # tensors on the CPU

Nothing runs: results are uninitialised, unless `on_launch` computes them. Nor is the memory touched: uninitialised
tensors may be as large as a card's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from gss_kernels import backends
from gss_kernels.triton.launch import Card

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
_SHARED_BYTES = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}
_MOST_THREADS = 1024


@dataclass(frozen=True)
class Launch:
    """One launch, as it would reach the driver of a card.

    Attributes:
        name: of the kernel's function.
        grid: number of programs.
        kernel: Triton's compiled kernel.
        arguments: values of the kernel's parameters in order, tuples flattened and constants left out.
        types: Triton's type of each, as "*fp32", "i32" or "fp32".
    """

    name: str
    grid: int
    kernel: Any
    arguments: tuple[Any, ...]
    types: tuple[str, ...]


@dataclass(frozen=True)
class Specialisation:
    """What Triton compiles a kernel for; equal ones are the same code.

    Attributes:
        name: of the kernel's function.
        target: one of `TARGETS`.
        key: all that makes it differ from other specialisations of the function.
        source: what Triton's compiler takes.
        options: its options.
    """

    name: str
    target: str
    key: str
    source: ASTSource = dataclasses.field(compare=False, repr=False)
    options: dict[str, Any] = dataclasses.field(compare=False, repr=False)

    def compile(self) -> Any:
        """Triton's compiled kernel."""
        return triton.compile(self.source, target=TARGETS[self.target], options=self.options)


@contextlib.contextmanager
def stub_card(target: str, multiprocessors: int, on_launch: Callable[[Launch], None] | None = None) -> Iterator[None]:
    """Let backend "triton" take tensors on the CPU and compile for a card of `TARGETS`; hand over every launch."""
    stub = _Driver(target, "launching")
    run = JITFunction.run

    def run_and_hand_over(function: JITFunction[Any], *arguments: Any, **options: Any) -> Any:
        kernel = run(function, *arguments, **options)
        if kernel is not None and on_launch is not None:
            grid, kinds, values = _Driver.launched
            on_launch(Launch(function.__name__, grid, kernel, values, kinds))
        return kernel

    with _in_place_of_the_card(stub, multiprocessors), mock.patch.object(JITFunction, "run", run_and_hand_over):
        yield


@contextlib.contextmanager
def silent_card(target: str, multiprocessors: int) -> Iterator[None]:
    """As `stub_card`, but launches go by what Triton itself does and no further, to be timed; for the whole process.

    As on a card Triton keeps the modules that it has loaded, and asks this driver to unload them at the end.
    """
    with _in_place_of_the_card(_SilentDriver(target, "silent"), multiprocessors):
        yield


@contextlib.contextmanager
def noted_specialisations(target: str, multiprocessors: int) -> Iterator[set[Specialisation]]:
    """As `stub_card`, but nothing is compiled: the set of what would be, filled meanwhile."""
    noted: set[Specialisation] = set()

    def note(*, fn: Any, compile: dict[str, Any], **_others: Any) -> bool:  # noqa: A002  (Triton's name)
        function, (attributes,) = fn.jit_function, compile["configs"]
        source = ASTSource(function, compile["signature"], compile["constants"], attributes)
        options = json.loads(compile["specialization_data"])["options"]
        hashable = {name: _as_tuples(value) for name, value in options.items()}
        noted.add(Specialisation(function.__name__, target, compile["key"], source, hashable))
        return True

    stub = _Driver(target, "noting")
    with (
        _in_place_of_the_card(stub, multiprocessors),
        mock.patch.object(triton.knobs.runtime, "jit_cache_hook", note),
    ):
        yield noted


@contextlib.contextmanager
def _in_place_of_the_card(stub: _Driver, multiprocessors: int) -> Iterator[None]:
    target = stub.get_current_target()
    card = Card(multiprocessors, target.warp_size, ptx=target.backend == "cuda")
    with (
        mock.patch.object(backends, "_TRITON_INTERPRETED", True),
        mock.patch.object(Card, "of", functools.partial(_given, card)),
        mock.patch.object(driver, "_active", stub),
    ):
        yield


class _Driver:
    """What Triton asks of a driver, its `utils` included.

    Attributes:
        launched: grid, types and arguments of the last launch; of the class, as a compiled kernel keeps the launcher of
            the driver that it was compiled for.
    """

    launched: ClassVar[tuple[int, tuple[str, ...], tuple[Any, ...]]]

    def __init__(self, target: str, purpose: str) -> None:
        self._target = target
        # Triton keeps compiled kernels by device: what is noted only must not be taken for compiled, nor the reverse.
        self._device = f"stub {target}, {purpose}"
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return TARGETS[self._target]

    def get_current_device(self) -> str:
        return self._device

    def get_current_stream(self, _device: str) -> int:
        return 0

    def get_device_properties(self, _device: str) -> dict[str, int]:
        return {"max_shared_mem": _SHARED_BYTES[self._target]}

    def load_binary(self, *_arguments: Any) -> tuple[None, None, int, int, int]:
        # No module: Triton would ask the driver that is active later to unload it.
        return None, None, 0, 0, _MOST_THREADS

    def launcher_cls(self, source: ASTSource, _metadata: Any) -> Callable[..., None]:
        signature = tuple(source.signature.values())

        def launch(grid_x: int, grid_y: int, grid_z: int, *rest: Any) -> None:
            flat = list(_flattened(signature, rest[-len(signature) :]))
            kinds, values = tuple(kind for kind, _ in flat), tuple(value for _, value in flat)
            _Driver.launched = grid_x * grid_y * grid_z, kinds, values

        return launch


class _SilentDriver(_Driver):
    def load_binary(self, *_arguments: Any) -> tuple[Any, ...]:
        return self, self, 0, 0, _MOST_THREADS

    def unload_module(self, _module: Any) -> None:
        pass

    def launcher_cls(self, _source: ASTSource, _metadata: Any) -> Callable[..., None]:
        return lambda *_arguments: None


def _given(card: Card, _device: torch.device) -> Card:
    return card


def _as_tuples(value: Any) -> Any:
    """JSON makes lists of the compiler's tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _flattened(kinds: tuple[Any, ...], values: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    for kind, value in zip(kinds, values, strict=True):
        if isinstance(kind, tuple):
            yield from _flattened(kind, value)
        elif kind != "constexpr":
            yield kind, value
