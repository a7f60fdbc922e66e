"""What the Triton backend launches, and the bytes behind the arguments: nothing runs here, so sizes cost nothing."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from gss_kernels import BRATS_2015, BRATS_2018, CategoryGroups, backends, fused_gss_loss, fused_gss_objective

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)

from gss_kernels.gss import launch
from gss_kernels.triton.launch import Card

_KERNELS = ("gss_forward_kernel", "gss_finish_kernel", "gss_backward_kernel")
_GROUPS = {4: BRATS_2018, 5: BRATS_2015}
_MULTIPROCESSORS = 132  # of an H200
_LITTLE = 1_000_000


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel: its name, and the tensors among its arguments by parameter."""

    kernel: str
    programs: int
    tensors: dict[str, tuple[Tensor, ...]]

    def bytes_of(self, *parameters: str) -> int:
        """Bytes behind these parameters."""
        return sum(tensor.nbytes for name in parameters for tensor in self.tensors.get(name, ()))


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for own in value:
            yield from tensors_in(own)


class Recorder:
    """Stands for a kernel and notes its launches."""

    def __init__(self, name: str, parameters: list[str], launches: list[Launch]) -> None:
        self.name = name
        self.parameters = parameters
        self.launches = launches

    def __getitem__(self, grid: tuple[int, ...]) -> Recorder:
        self.grid = grid
        return self

    def __call__(self, *arguments: Any, **constants: Any) -> None:
        assert not any(isinstance(value, Tensor) for value in constants.values())
        given = zip(self.parameters, arguments, strict=False)
        tensors = {name: found for name, value in given if (found := tuple(tensors_in(value)))}
        self.launches.append(Launch(self.name, self.grid[0], tensors))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """The launches of a test's calls with backend "triton" on CPU tensors, as they would be on the card."""
    noted: list[Launch] = []
    recorders = {
        field: Recorder(kernel.__name__, kernel.arg_names, noted)
        for field, kernel in launch.KERNELS._asdict().items()
        if field in ("forward", "finish", "backward")
    }
    monkeypatch.setattr(launch, "KERNELS", launch.KERNELS._replace(**recorders))
    monkeypatch.setattr(backends, "_TRITON_INTERPRETED", True)
    monkeypatch.setattr(Card, "of", lambda _device: Card(_MULTIPROCESSORS, 32, ptx=True))
    return noted


def both_passes(shape: tuple[int, ...], groups: CategoryGroups, dtype: torch.dtype, *, supervised: bool) -> Tensor:
    """Call the loss and differentiate it; what comes out is uninitialised, as no kernel runs."""
    logits = torch.empty(shape, dtype=dtype, requires_grad=True)
    if supervised:
        labels = torch.zeros((shape[0], *shape[3:]), dtype=torch.uint8)
        total = fused_gss_objective(logits, labels, groups, seed=1, backend="triton")
        assert isinstance(total, Tensor)
    else:
        total = fused_gss_loss(logits, groups, seed=1, backend="triton")
    total.backward()
    return logits


@pytest.mark.parametrize("supervised", [False, True], ids=["gss", "objective"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("categories", [4, 5])
@pytest.mark.parametrize("edge", [32, 80, 128])
def test_bytes_of_all_launches_are_the_floor(
    launches: list[Launch], edge: int, categories: int, dtype: torch.dtype, supervised: bool
) -> None:
    """Three passes over the logits: read, then read and write; with labels these in both passes; little besides."""
    logits = both_passes((2, 4, categories, edge, edge, edge), _GROUPS[categories], dtype, supervised=supervised)
    forward, finish, backward = launches
    assert (forward.kernel, finish.kernel, backward.kernel) == _KERNELS
    labels = 2 * edge**3 if supervised else 0
    floor = 3 * logits.nbytes + 2 * labels
    assert forward.bytes_of("logits") == backward.bytes_of("logits") == logits.nbytes
    assert forward.bytes_of("labels") == backward.bytes_of("labels") == labels
    assert backward.bytes_of("gradients") == logits.nbytes
    moved = sum(own.bytes_of(*own.tensors) for own in launches)
    assert floor <= moved <= floor + _LITTLE


def test_three_launches_besides_the_drawing_of_a_seed(launches: list[Launch]) -> None:
    both_passes((1, 4, 4, 80, 80, 80), BRATS_2018, torch.float32, supervised=False)
    assert len(launches) == 3


def test_partial_sums_do_not_grow_with_the_volume(launches: list[Launch]) -> None:
    for edge in (80, 128):
        both_passes((2, 4, 5, edge, edge, edge), BRATS_2015, torch.float32, supervised=True)
    small, large = (own.bytes_of("partials") for own in launches if own.kernel == "gss_forward_kernel")
    assert small == large <= _LITTLE // 2


def test_small_volumes_get_no_more_programs_than_blocks(launches: list[Launch]) -> None:
    both_passes((1, 4, 4, 4, 4, 4), BRATS_2018, torch.float32, supervised=False)
    assert [own.programs for own in launches] == [1, 1, 1]
