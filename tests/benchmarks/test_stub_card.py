"""A card that is not there: what Triton specialises to, and what reaches the driver."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: the interpreter compiles nothing", allow_module_level=True)

import triton
import triton.language as tl
from triton.runtime import driver

from benchmarks.stub_card import Launch, noted_specialisations, stub_card
from gss_kernels import BRATS_2018, fused_gss_loss

SHAPE = (1, 4, 4, 6, 5, 7)


@triton.jit
def copy_kernel(pointers, count, factors, size: tl.constexpr):
    offsets = tl.arange(0, size)
    values = tl.load(pointers[0] + offsets, mask=offsets < count)
    tl.store(pointers[1] + offsets, values * factors[0] + factors[1], mask=offsets < count)


def launch(count: int) -> None:
    pair = (torch.zeros(64), torch.zeros(64))
    copy_kernel[3,](pair, count, (2.0, 1.0), size=64, enable_fp_fusion=True)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "triton_cache"))


def test_integers_are_specialised_as_on_a_card() -> None:
    """To 1, to multiples of 16, and to none of these; equal ones count once."""
    with noted_specialisations("sm_90", 132) as noted:
        for count in (1, 32, 48, 33, 35):
            launch(count)
    assert {own.name for own in noted} == {"copy_kernel"}
    assert len(noted) == 3
    assert sum("tt.divisibility" in str(own.source.attrs.get((1,))) for own in noted) == 1
    assert [own.source.constants[1,] for own in noted if (1,) in own.source.constants] == [1]


@pytest.mark.parametrize(("target", "text"), [("sm_90", "ptx"), ("gfx942", "amdgcn")])
def test_noted_specialisation_compiles_for_its_target(target: str, text: str) -> None:
    with noted_specialisations(target, 132) as noted:
        launch(33)
    (only,) = noted
    assert "copy_kernel" in only.compile().asm[text]


def test_launch_has_the_arguments_of_the_compiled_kernel() -> None:
    launches: list[Launch] = []
    with stub_card("sm_90", 132, on_launch=launches.append):
        launch(33)
        launch(1)
    first, second = launches
    assert (first.name, first.grid) == ("copy_kernel", 3)
    assert first.types == ("*fp32", "*fp32", "i32", "fp32", "fp32")
    assert first.arguments[2:] == (33, 2.0, 1.0)
    assert all(isinstance(own, torch.Tensor) for own in first.arguments[:2])
    # A 1 is part of the code.
    assert second.types == ("*fp32", "*fp32", "fp32", "fp32")
    assert ".target sm_90" in first.kernel.asm["ptx"]


def test_public_functions_launch_as_many_programs_as_the_card_has_room_for() -> None:
    grids = []
    for multiprocessors in (1, 132):
        launches: list[Launch] = []
        with stub_card("sm_90", multiprocessors, on_launch=launches.append):
            fused_gss_loss(torch.empty(1, 4, 4, 64, 64, 64), BRATS_2018, seed=1, backend="triton")
        assert [own.name for own in launches] == ["gss_forward_kernel", "gss_finish_kernel"]
        grids.append(launches[0].grid)
    assert grids[0] < grids[1]


def test_everything_is_as_before_afterwards() -> None:
    before = (driver._active, torch.version.cuda, triton.knobs.runtime.jit_cache_hook)
    with noted_specialisations("sm_90", 132):
        fused_gss_loss(torch.empty(SHAPE), BRATS_2018, seed=1, backend="triton")
    assert (driver._active, torch.version.cuda, triton.knobs.runtime.jit_cache_hook) == before
    with pytest.raises(ValueError, match="backend: got 'triton'"):
        fused_gss_loss(torch.empty(SHAPE), BRATS_2018, backend="triton")


def test_a_kernel_that_does_not_compile_is_an_error() -> None:
    @triton.jit
    def wrong_kernel(pointer, size: tl.constexpr):
        tl.static_assert(size == 0)

    with stub_card("sm_90", 132), pytest.raises(triton.CompilationError):
        wrong_kernel[1,](torch.zeros(1), size=1, enable_fp_fusion=True)
